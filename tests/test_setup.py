"""What set-up says where something is missing."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.common import ROOT


@pytest.fixture
def clone(tmp_path):
    """A folder with what set-up reads, without an environment."""
    (tmp_path / 'tools').mkdir()
    for path in (ROOT / 'tools/setup.sh', ROOT / 'setup.cfg', *ROOT.glob('requirements*.txt')):
        shutil.copy(path, tmp_path / path.relative_to(ROOT))
    return tmp_path


def set_up(folder, **env) -> list[str]:
    """The lines of a set-up that must fail."""
    done = subprocess.run(
        ['bash', str(folder / 'tools' / 'setup.sh')],
        text=True,
        capture_output=True,
        timeout=120,
        env={**os.environ, 'PYTHON': sys.executable, **env},
    )
    assert done.returncode == 1
    return done.stderr.splitlines()


def test_another_python_is_named(clone):
    (clone / 'python').write_text('#!/bin/sh\necho Python 3.9.1; exit 1\n')
    (clone / 'python').chmod(0o755)
    assert set_up(clone, PYTHON=str(clone / 'python')) == [
        f'setup: Python 3.11 or 3.12 is needed, and {clone}/python is Python 3.9.1: install one of them, or name it '
        'with PYTHON=/path/to/python3.11.'
    ]


def test_an_unknown_extra_is_named(clone):
    assert set_up(clone, EXTRAS='classify') == ["setup: EXTRAS must be classification or empty, not 'classify'."]


@pytest.mark.parametrize(
    'index, torch', [('', 'torch===2.13.0 torchvision===0.28.0'), ('http://here', 'torch==2.13.0 torchvision==0.28.0')]
)
def test_classification_takes_torch_and_torchvision_from_one_place_and_is_kept(clone, index, torch):
    """Of the default index the pair of CUDA builds, whatever else has a 2.13.0+cpu."""
    (clone / 'other/bin').mkdir(parents=True)
    (clone / 'other/bin/python').write_text(FAKE_PYTHON)
    (clone / 'other/bin/python').chmod(0o755)
    set_up(clone, EXTRAS='classification', VENV='other', TORCH_INDEX_URL=index)
    assert f'== installing {torch}\n' in (clone / 'setup.log').read_text()
    assert 'EXTRAS=classification' in (clone / 'other/settings').read_text() and not (clone / '.venv').exists()


def test_no_python_at_all_is_named(clone):
    assert set_up(clone, PYTHON='no-python')[0].startswith(
        'setup: Python 3.11 or 3.12 is needed, and no-python is missing: install one'
    )


def test_a_missing_compiler_is_named(clone):
    lines = set_up(clone, CXX='no-such-compiler')
    assert len(lines) == 1 and lines[0].startswith('setup: no C++ compiler (no-such-compiler)')
    assert 'apt-get install g++' in lines[0]


def test_a_missing_network_is_named_and_the_next_call_goes_on(clone):
    offline = dict(
        PIP_CONFIG_FILE=os.devnull,
        PIP_INDEX_URL='http://127.0.0.1:9',
        PIP_EXTRA_INDEX_URL='',
        PIP_FIND_LINKS='',
        PIP_RETRIES='1',
        TORCH_INDEX_URL='',
        NO_PROXY='*',
    )
    for _ in range(2):  # the second time the environment is there already
        lines = set_up(clone, **offline)
        assert len(lines) == 1
        assert lines[0].startswith('setup: installing torch==2.13.0 failed: the package index cannot be reached.')
    assert not (clone / '.venv' / 'ready').exists()


# Answers what set-up asks of torch, as a machine with a CUDA build of it would, and lets every installation pass.
FAKE_PYTHON = """#!/bin/sh
case "$*" in
    *get_device_capability*) echo 2.13.0 ${FAKE_CUDA-13.0} ${FAKE_CARD-none} ;;
    *CUDA_HOME*) echo "$FAKE_CUDA_HOME" ;;
    *version_info*) echo "(3, 11)" ;;
    *"-c "*mmcv*) exit 1 ;;
    *force-reinstall*mmcv*)
        echo "BUILD $FORCE_CUDA $TORCH_CUDA_ARCH_LIST"
        cat "${CPATH:-none}"/*.h 2>/dev/null  # the headers that are found beside the toolkit's
        exit 1 ;;
esac
"""


UPSTREAM = ['mmcv==2.1.0', 'mmengine==0.10.7', 'mmdet==3.3.0', 'mmsegmentation==1.2.2']
FORK = ['onedl-mmcv==2.3.6', 'onedl-mmengine==0.10.12', 'onedl-mmdetection==3.5.1', 'onedl-mmsegmentation==1.4.2']
STACKS = dict(
    upstream=[*UPSTREAM, 'torch==2.13.0'], onedl=[*FORK, 'torch==2.13.0'], torch26=[*UPSTREAM, 'torch==2.6.0']
)
# What torch's headers include of CUDA's.
HEADERS = ('cuda_runtime.h', 'cusparse.h', 'cublas_v2.h', 'cublasLt.h', 'cusolverDn.h')


def write_headers(folder: Path, names) -> None:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_text(f'// {name} of {folder.parent.name}\n')


def fill(folder: Path, scripts: dict[str, str]) -> None:
    for name, text in scripts.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)


@pytest.mark.parametrize(
    'env, message',
    [
        (dict(MMCV_CUDA='maybe'), "MMCV_CUDA must be 0 or 1, not 'maybe'"),
        (dict(MMCV_CUDA='1', FAKE_CUDA='none'), 'MMCV_CUDA=1, but torch 2.13.0 is a CPU build'),
        (dict(FAKE_CARD='sm90'), "mmcv's CUDA ops need nvcc 13.0, which is not here"),
        (dict(FAKE_CARD='sm90', RELEASE='12.4'), 'nvcc is of CUDA 12.4 and torch of CUDA 13.0'),
        (dict(FAKE_CARD='sm90', RELEASE='13.0'), 'BUILD 1 \n'),
        (dict(MMCV_CUDA='1', RELEASE='13.0'), 'BUILD 1 7.5;8.0;8.6;9.0+PTX\n'),
        (dict(MMCV_CUDA='1', RELEASE='13.0', TORCH_CUDA_ARCH_LIST='9.0'), 'BUILD 1 9.0\n'),
        (dict(MMCV_CUDA='0', FAKE_CARD='sm90'), 'BUILD 0 \n'),
        (dict(), 'BUILD 0 \n'),
    ],
)
def test_cuda_ops_are_built_where_they_can_be_and_said_so_where_not(clone, env, message):
    (clone / '.venv' / 'bin').mkdir(parents=True)
    (clone / 'cuda' / 'bin').mkdir(parents=True)
    scripts = {'.venv/bin/python': FAKE_PYTHON}
    if 'RELEASE' in env:
        scripts['cuda/bin/nvcc'] = f'#!/bin/sh\necho Cuda compilation tools, release {env["RELEASE"]}, V1\n'
        write_headers(clone / 'cuda/include', HEADERS)
    fill(clone, scripts)
    unset = dict(MMCV_CUDA='', TORCH_CUDA_ARCH_LIST='', TORCH_INDEX_URL='')
    lines = set_up(clone, **{**unset, 'FAKE_CUDA_HOME': str(clone / 'cuda'), 'PYTHON': sys.executable, **env})
    assert message in '\n'.join(lines) + '\n'
    assert not (clone / '.venv' / 'ready').exists()
    kept = dict(line.split('=', 1) for line in (clone / '.venv' / 'settings').read_text().splitlines())
    assert kept['MMCV_CUDA'] == env.get('MMCV_CUDA', '')


@pytest.mark.parametrize('brought', [True, False])
def test_a_toolkit_without_cusparses_header_takes_that_of_torchs_packages_or_says_so(clone, brought):
    (clone / '.venv/bin').mkdir(parents=True)
    (clone / 'cuda/bin').mkdir(parents=True)
    nvcc = '#!/bin/sh\necho Cuda compilation tools, release 13.0, V1\n'
    fill(clone, {'.venv/bin/python': FAKE_PYTHON, 'cuda/bin/nvcc': nvcc})
    write_headers(clone / 'cuda/include', [name for name in HEADERS if name != 'cusparse.h'])
    if brought:
        write_headers(clone / '.venv/lib/python3.11/site-packages/nvidia/cu13/include', (*HEADERS, 'cusparse_v2.h'))
    env = dict(MMCV_CUDA='1', TORCH_CUDA_ARCH_LIST='9.0', TORCH_INDEX_URL='', CPATH='')
    lines = set_up(clone, **env, FAKE_CUDA_HOME=str(clone / 'cuda'), PYTHON=sys.executable)
    if brought:
        found = lines.index('BUILD 1 9.0')
        assert lines[found + 1 : found + 3] == ['// cusparse.h of cu13', '// cusparse_v2.h of cu13']
        assert '// cublas' not in '\n'.join(lines)
    else:
        (line,) = lines
        assert line.startswith(f"setup: mmcv's CUDA ops need cusparse.h, which {clone}/cuda/include lacks and torch's")
        assert 'install the whole CUDA toolkit 13.0' in line and line.endswith(
            'or set MMCV_CUDA=0 to use the CPU only.'
        )


@pytest.mark.parametrize('stack', STACKS)
def test_a_stack_is_chosen_by_name(clone, stack):
    (clone / '.venv/bin').mkdir(parents=True)
    (clone / '.venv/stack').write_text(f'{stack}\n')
    fill(clone, {'.venv/bin/python': FAKE_PYTHON})
    lines = set_up(clone, STACK=stack, MMCV_CUDA='0', TORCH_INDEX_URL='', PYTHON=sys.executable)
    assert f'setup: building {STACKS[stack][0]} with its ops' in lines[-1]
    pins = (clone / '.venv/requirements.txt').read_text().splitlines()
    own = [line for line in pins if re.match(r'(onedl-)?mm(cv|engine|det|seg)|torch==', line)]
    assert sorted(own) == sorted(STACKS[stack]) and len(pins) >= 100
    assert f'== installing {STACKS[stack][-1]}\n' in (clone / 'setup.log').read_text()


def test_an_unknown_stack_is_named(clone):
    assert set_up(clone, STACK='other') == ["setup: STACK must be upstream, onedl or torch26, not 'other'."]


def test_classification_is_for_the_upstream_stack(clone):
    (line,) = set_up(clone, STACK='onedl', EXTRAS='classification')
    assert line.startswith('setup: EXTRAS=classification is for STACK=upstream')
