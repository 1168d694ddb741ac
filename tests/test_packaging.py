"""What is installed is whole, works without the repository, and declares what it imports."""

import ast
import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from modelindex.load_model_index import load

from tests.common import ALONE, ROOT

# The name of the distribution where it differs from that of the module.
DISTRIBUTIONS = dict(
    PIL='pillow',
    cv2='opencv-python',
    faster_coco_eval='faster-coco-eval',
    jinja2='Jinja2',
    mmseg='mmsegmentation',
    sklearn='scikit-learn',
    yaml='PyYAML',
)
# pip would replace the one and build the other without its ops: docs/install.md installs them first.
INSTALLED_BEFORE = {'torch', 'mmcv'}


def imported(folder: str, at_import: bool = False) -> set[str]:
    """The foreign packages that the modules of a folder import; ``at_import``: outside of functions only."""
    found = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            found.update(alias.name.split('.')[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.split('.')[0])
        if not (at_import and isinstance(node, ast.FunctionDef)):
            for child in ast.iter_child_nodes(node):
                visit(child)

    for path in (ROOT / folder).rglob('*.py'):
        visit(ast.parse(path.read_text()))
    return {DISTRIBUTIONS.get(name, name) for name in found - sys.stdlib_module_names - {folder}}


def declared() -> dict[str, set[str]]:
    """The packages that setup.cfg names: those of every installation under '', and those of each extra."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / 'setup.cfg')
    lists = {'': setup['options']['install_requires'], **setup['options.extras_require']}
    return {extra: set(re.findall(r'^[\w-]+', text, re.MULTILINE)) for extra, text in lists.items()}


def test_the_package_declares_what_it_imports():
    packages = declared()
    assert imported('pvt_mm', at_import=True) <= packages[''] | INSTALLED_BEFORE
    extras = set().union(
        *(packages[extra] for extra in ('classification', 'digits', 'export', 'fast_eval', 'huggingface'))
    )
    assert imported('pvt_mm') <= packages[''] | extras | INSTALLED_BEFORE


def test_importing_the_package_loads_nothing_that_mmengines_runner_does_not_load():
    """No mmcv, mmdet, mmseg or mmpretrain. The runner loads OpenCV.

    It cannot wait: mmengine has the classes of hooks, loops and the runner only there, from which ours inherit, and the
    loader that is told of ``pvt://``, which must be known before any config or model is read.
    """
    ask = (
        'import sys, mmengine.runner; loaded = lambda: {name.partition(".")[0] for name in sys.modules}; '
        'before = loaded(); import pvt_mm; print(loaded() - before - sys.stdlib_module_names, '
        '{"mmcv", "mmdet", "mmseg", "mmpretrain"} & loaded())'
    )
    said = subprocess.run([sys.executable, '-c', ask], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said == "{'pvt_mm'} set()\n"


@pytest.mark.parametrize(('folder', 'extras'), [('paper', ['paper']), ('benchmarks', ['paper', 'export'])])
def test_the_repositorys_folders_declare_what_they_import(folder, extras):
    packages = declared()
    ours = {'pvt_mm', 'paper', 'benchmarks', 'tests'}
    assert imported(folder) <= set().union(*(packages[extra] for extra in ['', *extras])) | INSTALLED_BEFORE | ours


def test_the_tests_extra_holds_all_others():
    """But for mmpretrain, whose tests have an environment of their own."""
    packages = declared()
    del packages['classification']
    assert set().union(*packages.values()) - packages[''] <= packages['test']


def test_requirements_txt_pins_all_that_is_declared():
    packages = declared()
    pinned = set(re.findall(r'^([\w-]+)==', (ROOT / 'requirements.txt').read_text(), re.MULTILINE))
    assert 'opencv-python-headless' in pinned  # the twin of opencv-python for machines without a desktop
    assert packages[''] | packages['test'] <= pinned | {'opencv-python'}


@pytest.fixture(scope='module')
def installed(tmp_path_factory) -> Path:
    """The wheel, built of a copy, in a folder of its own."""
    root = tmp_path_factory.mktemp('wheel')
    for name in ('pvt_mm', 'configs'):
        shutil.copytree(ROOT / name, root / 'source' / name, symlinks=True)
    for name in ('setup.cfg', 'pyproject.toml', 'README.md', 'LICENSE', 'model-index.yml'):
        shutil.copy(ROOT / name, root / 'source')
    pip = [sys.executable, '-m', 'pip', '--disable-pip-version-check', '--quiet']
    subprocess.run([*pip, 'wheel', root / 'source', '--no-deps', '--no-build-isolation', '-w', root], check=True)
    (wheel,) = root.glob('*.whl')
    subprocess.run([*pip, 'install', wheel, '--no-deps', '--target', root / 'installed'], check=True)
    return root / 'installed'


@pytest.fixture
def run(installed, tmp_path, on_cpu):
    """Runs a command in another folder, with the installed wheel."""

    def run(*command, check: bool = True) -> subprocess.CompletedProcess:
        env = dict(os.environ, PYTHONPATH=str(installed), PYTHONWARNINGS='ignore', OMP_NUM_THREADS='1', **on_cpu)
        done = subprocess.run(
            list(map(str, command)), cwd=tmp_path, env=env, text=True, capture_output=True, timeout=300
        )
        assert not check or done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done

    return run


def files(package: Path, configs: Path) -> set[str]:
    found = {f'{path.relative_to(package)}' for path in package.rglob('*.*') if path.suffix in ('.py', '.html')}
    found = {path for path in found if not path.startswith('.mim/')}
    return found | {f'configs/{path.relative_to(configs)}' for path in configs.rglob('*.*') if path.suffix != '.pyc'}


def test_the_wheel_holds_every_module_template_and_config(installed):
    assert files(installed / 'pvt_mm', installed / 'pvt_mm/.mim/configs') == files(ROOT / 'pvt_mm', ROOT / 'configs')
    assert (installed / 'pvt_mm/py.typed').is_file()  # type checkers read the annotations


def test_mim_finds_every_model_and_its_config_in_the_wheel(installed):
    index = load(str(installed / 'pvt_mm/.mim/model-index.yml'))  # as mim does
    assert len(index.models) >= 90
    assert all((installed / 'pvt_mm/.mim' / model.config).is_file() for model in index.models)


def test_the_changelog_and_the_citation_are_of_this_version():
    setup = configparser.ConfigParser()
    setup.read(ROOT / 'setup.cfg')
    version = setup['metadata']['version']
    assert re.search(r'^## (\S+)', (ROOT / 'CHANGELOG.md').read_text(), re.MULTILINE)[1] == version
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    assert citation['version'] == version and citation['license'] == setup['metadata']['license']
    assert citation['preferred-citation']['title'].startswith('Pyramid Vision Transformer')


def test_contributing_names_every_folder_and_make_target_that_there_is():
    page = (ROOT / 'CONTRIBUTING.md').read_text()
    tracked = subprocess.run(['git', 'ls-files'], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    folders = {path.split('/')[0] for path in tracked if '/' in path and not path.startswith('.')}
    assert folders <= set(re.findall(r'^\| `(\w+)/`', page, re.MULTILINE))
    targets = set(re.findall(r'^([a-z-]+):', (ROOT / 'Makefile').read_text(), re.MULTILINE))
    assert set(re.findall(r'make ([a-z-]+)', page)) <= targets


def test_a_config_on_top_of_a_shipped_one_loads_from_the_wheel(run, tmp_path):
    """The block of docs/install.md, through Config.fromfile, as every tool reads it."""
    (text,) = re.findall(r'```python\n(_base_.*?)```', (ROOT / 'docs/install.md').read_text(), re.DOTALL)
    (tmp_path / 'mine.py').write_text(text)
    ask = (
        'from mmengine.config import Config; cfg = Config.fromfile("mine.py"); '
        'print(cfg.model.backbone.type, cfg.model.backbone.arch, cfg.train_dataloader.batch_size)'
    )
    assert run(sys.executable, '-c', ask).stdout == 'PVT small 4\n'


IMPORT_AND_LOAD = """
import importlib, pkgutil, sys
from mmengine.config import Config
import pvt_mm
from pvt_mm.commands.launch import CONFIGS

for module in pkgutil.walk_packages(pvt_mm.__path__, 'pvt_mm.'):
    if module.name != 'pvt_mm.__main__':
        assert importlib.import_module(module.name).__file__.startswith(sys.argv[1]), module
assert str(CONFIGS).startswith(sys.argv[1])
for path in CONFIGS.glob('[!_]*/*.py'):
    assert 'model' in Config.fromfile(path), path
"""


@pytest.mark.slow
def test_every_module_imports_and_every_config_loads_from_the_wheel(run, installed):
    run(sys.executable, '-c', IMPORT_AND_LOAD, installed)


@pytest.mark.slow
def test_the_wheel_trains_by_name_alone_and_in_two_processes(run, installed, tmp_path):
    program = installed / 'bin/pvt-mm'
    run(sys.executable, program, 'make_digits', '--num-train', 4, '--num-val', 2)
    train = ('train', 'retinanet/pvt_nano_digits')
    settings = ('--cfg-options', *ALONE, 'train_cfg.max_epochs=1', 'train_dataloader.batch_size=2')
    done = run(sys.executable, program, *train, *settings)
    assert 'Epoch(train) [1][2/2]' in done.stdout
    work_dir = tmp_path / 'work_dirs/retinanet/pvt_nano_digits'
    assert (work_dir / 'epoch_1.pth').is_file()
    launcher = (sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node', 2, '--standalone', '-m', 'pvt_mm')
    done = run(*launcher, *train, '--launcher', 'pytorch', '--work-dir', 'two', *settings)
    assert 'Epoch(train) [1][1/1]' in done.stdout and (tmp_path / 'two/epoch_1.pth').is_file()
    done = run(sys.executable, program, 'train', 'retinanet/pvt_nanodigits', check=False)
    (line,) = done.stderr.splitlines()
    assert line.startswith('pvt-mm train: config retinanet/pvt_nanodigits does not exist')


def test_digits_without_scikit_learn_name_the_extra(run):
    hide = 'import sys; sys.modules["sklearn"] = None; from pvt_mm.commands.make_digits import main; main()'
    done = run(sys.executable, '-c', hide, check=False)
    assert done.returncode == 1 and done.stderr.splitlines()[-1].endswith('pip install "pvt_mm[digits]"')
    assert len(done.stderr.splitlines()) == 1


def test_checking_data_needs_no_scikit_learn(run):
    run(sys.executable, '-c', 'import sys; import pvt_mm.commands.prepare_data; assert "sklearn" not in sys.modules')
