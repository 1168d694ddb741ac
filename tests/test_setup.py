"""What set-up says where something is missing."""
import os
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.fixture
def clone(tmp_path):
    """A folder with what set-up reads, without an environment."""
    (tmp_path / 'tools').mkdir()
    for name in ('tools/setup.sh', 'requirements.txt', 'setup.cfg'):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def set_up(folder, **env) -> list[str]:
    """The lines of a set-up that must fail."""
    done = subprocess.run(['bash', str(folder / 'tools' / 'setup.sh')], text=True, capture_output=True, timeout=120,
                          env={**os.environ, 'PYTHON': sys.executable, **env})
    assert done.returncode == 1
    return done.stderr.splitlines()


def test_another_python_is_named(clone):
    (clone / 'python').write_text('#!/bin/sh\necho Python 3.9.1; exit 1\n')
    (clone / 'python').chmod(0o755)
    assert set_up(clone, PYTHON=str(clone / 'python')) == [
        f'setup: Python 3.11 or 3.12 is needed and {clone}/python is Python 3.9.1: install one of them, or name it '
        'with PYTHON=/path/to/python3.11.']


def test_a_missing_compiler_is_named(clone):
    lines = set_up(clone, CXX='no-such-compiler')
    assert len(lines) == 1 and lines[0].startswith('setup: no C++ compiler (no-such-compiler)')
    assert 'apt-get install g++' in lines[0]


def test_a_missing_network_is_named_and_the_next_call_goes_on(clone):
    offline = dict(PIP_CONFIG_FILE=os.devnull, PIP_INDEX_URL='http://127.0.0.1:9/simple', PIP_EXTRA_INDEX_URL='',
                   PIP_FIND_LINKS='', PIP_RETRIES='0')
    for _ in range(2):  # the second time the environment is there already
        lines = set_up(clone, **offline)
        assert len(lines) == 1
        assert lines[0].startswith('setup: installing torch==2.13.0 failed: the package index cannot be reached.')
    assert not (clone / '.venv' / 'ready').exists()
