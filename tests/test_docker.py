"""The Dockerfile, without a daemon that builds it: .ci/run runs its steps, and here is what a builder would check."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.common import ROOT

LINES = [line for line in (ROOT / 'Dockerfile').read_text().splitlines() if line and not line.startswith('#')]
SET_UP = (ROOT / 'tools/setup.sh').read_text()


def arguments(instruction: str) -> list[str]:
    return [line.removeprefix(f'{instruction} ') for line in LINES if line.startswith(f'{instruction} ')]


def packages() -> set[str]:
    (step,) = [step for step in arguments('RUN') if 'apt-get' in step]
    return {word for word in step.rpartition('install')[2].split() if not word.startswith('-')}


def test_every_line_is_an_instruction_and_the_image_comes_first():
    assert {line.split()[0] for line in LINES} == {'ARG', 'FROM', 'WORKDIR', 'RUN', 'COPY', 'ENV'}
    assert LINES[0].startswith('ARG BASE=') and LINES[1] == 'FROM ${BASE}'


def test_it_installs_what_set_up_asks_for():
    asked = set(re.findall(r'apt-get install ([\w+-]+)', SET_UP))
    assert asked == {'g++', 'python3-dev', 'python3-venv'} and asked | {'git', 'make'} <= packages()


def test_its_arguments_are_settings_of_set_up():
    settings = re.search(r'^settings=\((.*)\)$', SET_UP, re.M)[1].split()
    for argument in arguments('ARG')[1:]:
        assert argument.partition('=')[0] in settings


@pytest.mark.parametrize('cuda', ['0', '1'])
def test_its_steps_run_as_a_script(tmp_path, cuda):
    """In a shell as a builder's, with programs that note how they were called."""
    (tmp_path / 'bin').mkdir()
    for program in ('apt-get', 'make'):
        (tmp_path / 'bin' / program).write_text(f'#!/bin/sh\necho "{program} $* $MMCV_CUDA" >> {tmp_path}/calls\n')
        (tmp_path / 'bin' / program).chmod(0o755)
    env = dict(os.environ, PATH=f'{tmp_path}/bin:{os.environ["PATH"]}', MMCV_CUDA=cuda)
    for step in arguments('RUN'):
        subprocess.run(['sh', '-ec', re.sub(r'^--mount=\S+ ', '', step)], env=env, cwd=tmp_path, check=True)
    update, install, set_up = (tmp_path / 'calls').read_text().splitlines()
    assert update.startswith('apt-get update') and install.startswith('apt-get install -y')
    assert set_up == f'make setup {cuda}'


def test_ci_runs_the_steps_but_for_the_packages(tmp_path):
    """The line of .ci/run, with a make that notes how it was called."""
    (line,) = [line for line in (ROOT / '.ci/run').read_text().splitlines() if 'Dockerfile |' in line]
    shutil.copy(ROOT / 'Dockerfile', tmp_path)
    (tmp_path / 'make').write_text(f'#!/bin/sh\necho "make $*" >> {tmp_path}/calls\n')
    (tmp_path / 'make').chmod(0o755)
    env = dict(os.environ, PATH=f'{tmp_path}:{os.environ["PATH"]}')
    subprocess.run(['bash', '-euo', 'pipefail', '-c', line], env=env, cwd=tmp_path, check=True)
    assert (tmp_path / 'calls').read_text() == 'make setup\n'


def test_the_context_leaves_out_what_is_made_here():
    left_out = (ROOT / '.dockerignore').read_text().split()
    made = [line.strip('/') for line in (ROOT / '.gitignore').read_text().split()]
    assert {'.venv*', 'data', 'work_dirs', 'build'} <= set(left_out) & set(made)
    tracked = subprocess.run(['git', 'ls-files'], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    assert not {Path(path).parts[0] for path in tracked} & set(left_out)
