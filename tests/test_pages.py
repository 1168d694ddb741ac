"""The commands in README.md, CONTRIBUTING.md and docs/: each is run by a test, or is marked with what it needs.

A mark is a comment before the block. CONTRIBUTING.md says what each means. Blocks without one run here, on the digits.
Of every command, run or not, the program, the config and the flags are there.
"""

import argparse
import ast
import re
import runpy
import shlex
import sys
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import cv2
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope

from pvt_mm.commands import COMMANDS
from pvt_mm.commands.dist import split_arguments
from pvt_mm.commands.launch import find_config
from tests.common import ALONE, ROOT

PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').glob('*.md'))]
BLOCK = re.compile(r'^ *(?:<!-- ([^>]*?) -->\n *)?```(?:bash|shell|sh|console)\n(.*?)^ *```', re.M | re.S)
MARKS = ('gpu', 'full data', 'network')


@dataclass
class Block:
    page: Path
    mark: str
    commands: list[list[str]]  # words, without the variables before and the comment after

    @property
    def name(self) -> str:
        return f'{self.page.name}: {" ".join(self.commands[0])[:40]}'


def commands(text: str) -> list[list[str]]:
    found = []
    text = re.sub(r'\[(?:[A-Z_]+|flags of .*?|.* \.\.\.)\]|\.\.\.', '', text.replace('\\\n', ' '))
    text = re.sub(r'\[(--.*?)(?:\|\S*)?\]', r'\1', text)  # of [--flag a|b] the first
    text = re.sub(r'^\w+=\S*\$\(.*\).*$', '', text, flags=re.M)  # a variable that a command fills
    for line in re.split(r'\n|&&', text):
        words = shlex.split(line, comments=True)
        while words and re.match(r'\w+=', words[0]):
            del words[0]
        if words:
            found.append(words)
    return found


BLOCKS = [
    Block(page, block[1] or '', commands(block[2])) for page in PAGES for block in BLOCK.finditer(page.read_text())
]
HERE = [block for block in BLOCKS if not block.mark]


def test_no_command_stands_outside_of_a_marked_block():
    """Indented blocks and blocks without a language would pass by."""
    for page in PAGES:
        rest = BLOCK.sub('', page.read_text())
        rest = re.sub(r'^ *```\w+\n.*?^ *```', '', rest, flags=re.M | re.S)
        assert not re.search(r'^ *(?:\$ )?(?:pvt-mm|python|bash|make|pip|tools/\w+\.sh) .*', rest, re.M), page
    assert len(BLOCKS) > 40


@pytest.mark.parametrize('block', [block for block in BLOCKS if block.mark], ids=lambda block: block.name)
def test_a_mark_is_known_and_the_test_it_names_runs_such_commands(block):
    if block.mark in MARKS:
        return
    assert block.mark.startswith('test: '), f'{block.name}: the mark <!-- {block.mark} --> means nothing'
    used = set().union(*(used_by(ROOT / path) for path in block.mark.removeprefix('test: ').split()))
    for command in block.commands:
        assert is_run(command, used), f'{block.name}: the files of its mark do not run {" ".join(command)}'


def is_run(command: list[str], used: set[str]) -> bool:
    """Whether files that use this run the program of a command, or parts of it."""
    if command[0] == 'make':
        return {f'make {word}' for word in command[1:]} <= used or all(is_run(it, used) for it in recipe(command[1]))
    return command[0] == 'source' or bool(names_of(command) & used)


def recipe(target: str) -> list[list[str]]:
    """What make calls for a target, but for pytest, which calls the tests."""
    before, lines = re.search(rf'^{target}:(.*)\n((?:\t.*\n)*)', (ROOT / 'Makefile').read_text(), re.M).groups()
    steps = [step for other in before.split() for step in recipe(other)]
    return steps + [step for step in commands(lines.replace('\t@', '')) if 'pytest' not in step]


def names_of(command: list[str]) -> set[str]:
    """What a test that runs a command's program imports, or has as a whole string."""
    if command[0] == 'pvt-mm':
        command = ['python', f'tools/{command[1]}.py']
    if command[:2] == ['python', '-m']:
        return {command[2], f'import {command[2]}'}
    script = Path(next(word for word in command if word.endswith(('.py', '.sh'))).removeprefix('$TOOLS/'))
    modules = {f'import {script.stem}', f'import pvt_mm.commands.{script.stem}'}
    return {f'{script}', script.name, f'{script.with_suffix("")}'} | modules


def used_by(file: Path) -> set[str]:
    """What a test imports, each as ``import NAME``, and its strings; of a page that it runs, the programs.

    Of another file, .ci/run or the Makefile, the words that it gives to make.
    """
    if file.suffix != '.py':
        calls = re.findall(r'^(?:\t@\$\(MAKE\)|make) (.*)', file.read_text(), re.M)
        return {f'make {word}' for words in calls for word in words.split()}
    used = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            used.update(f'import {alias.name}' for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            used.update(f'import {name}' for it in node.names for name in (node.module, f'{node.module}.{it.name}'))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            used.add(node.value)
    if 'import pvt_mm.commands.main' in used:
        found = [it for block in BLOCKS if f'docs/{block.page.name}' in used for it in block.commands]
        used.update(name for command in found if command[0] == 'pvt-mm' for name in names_of(command))
    return used


@pytest.mark.parametrize(
    'text',
    [
        'test = (folder / "test", "latest.pth")  # test, test.py',
        'def test_test():\n    """Runs test.py and tools/test.py."""\n    run("train.py")',
        'from pvt_mm.commands import train\nassert test_cfg["test"].test == "the end of test.py"',
    ],
)
def test_a_mere_word_is_no_run(text, tmp_path):
    file = tmp_path / 'test_it.py'
    file.write_text(text)
    for command in ('pvt-mm test CONFIG', 'python tools/test.py CONFIG', 'python -m paper.test'):
        assert not is_run(command.split(), used_by(file))
    for more in ('from pvt_mm.commands import test', 'from paper.test import part', 'tool("test.py")'):
        file.write_text(f'{text}\n{more}')
        assert is_run(['python', '-m', 'paper.test'] if 'paper' in more else ['pvt-mm', 'test'], used_by(file))


class Parsed(Exception):
    """Ends a program once its arguments are parsed."""


@pytest.mark.parametrize('block', BLOCKS, ids=lambda block: block.name)
def test_every_program_config_and_flag_is_there(block, monkeypatch):
    known = argparse.ArgumentParser.parse_known_args

    def parse(self, args=None, namespace=None):
        _, unknown = known(self, args, namespace)  # exits where a flag has a wrong value or an argument is missing
        assert not unknown, unknown
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', parse)
    for command in block.commands:
        for word in command:
            if re.fullmatch(r'configs/\S+\.py', word):
                assert (ROOT / word).is_file(), word
            if re.fullmatch(r'[a-z_0-9]+/(pvt|r\d+)\w+', word):
                find_config(word)
        check(command, monkeypatch)


def check(command: list[str], monkeypatch) -> None:
    """That the arguments of a command are right, as its own parser says."""
    program, *args = command
    if program == 'bash':
        program, *args = args
    if program == 'make':
        assert re.search(rf'^[a-z -]*\b{args[0]}\b[a-z -]*:', (ROOT / 'Makefile').read_text(), re.M), command
    elif program == 'pip':
        check_pins(args)
    elif program == 'pvt-mm':
        assert args[0] in COMMANDS
        parse_as(f'pvt_mm.commands.{args[0]}', args[1:], monkeypatch)
    elif program in ('tools/dist_train.sh', 'tools/dist_test.sh'):
        name = program[len('tools/dist_') : -len('.sh')]
        monkeypatch.setenv('MAX_RESTARTS', '0')
        files, _, flags = split_arguments(name, ['8' if word == 'GPUS' else word for word in args])
        parse_as(f'pvt_mm.commands.{name}', files + flags, monkeypatch)
    elif program in ('tools/slurm_train.sh', 'tools/slurm_test.sh'):
        parse_as(f'pvt_mm.commands.{Path(program).stem[len("slurm_") :]}', args[2:], monkeypatch)
    elif program == 'python' and args[0] == '-c':
        compile(args[1], 'command', 'exec')
    elif program == 'python' and args[0].startswith('$TOOLS/'):  # mmdet's
        assert Path(find_spec('mmdet').origin).with_name('.mim').joinpath('tools', args[0][len('$TOOLS/') :]).is_file()
    elif program == 'python' and 'pvt_mm' in args:
        check(['pvt-mm', *args[args.index('pvt_mm') + 1 :]], monkeypatch)
    elif program == 'python' and args[0] == '-m':
        parse_as(args[1], args[2:], monkeypatch)
    elif program == 'python' and args[0] == 'tools/run_onnx.py':  # complete in itself
        monkeypatch.setattr(sys, 'argv', args)
        with pytest.raises(Parsed):
            runpy.run_path(str(ROOT / args[0]), run_name='__main__')
    elif program == 'python' and args[0].startswith('tools/'):
        assert (ROOT / args[0]).is_file()
        parse_as(f'pvt_mm.commands.{Path(args[0]).stem}', args[1:], monkeypatch)
    elif program.endswith('.sh'):
        assert (ROOT / program).is_file()
    else:
        assert program in ('cd', 'docker', 'git', 'pre-commit', 'source'), (
            f'{" ".join(command)}: a program that this test does not know'
        )


def parse_as(module: str, args: list[str], monkeypatch) -> None:
    monkeypatch.setattr(sys, 'argv', [module, *(STANDS_FOR.get(word, word) for word in args)])
    with pytest.raises(Parsed):
        import_module(module).main()


def check_pins(args: list[str]) -> None:
    """Versions that a page tells to install are those on which the tests run."""
    pinned = [line for path in ROOT.glob('requirements*.txt') for line in path.read_text().splitlines()]
    for word in args:
        if '==' in word:
            assert word in pinned, word


# What stands for the placeholders of the pages' commands, and for what takes a day to train.
STANDS_FOR = {
    'CONFIG': 'retinanet/pvt_nano_digits',
    'retinanet/pvt_small_1x': 'retinanet/pvt_nano_digits',
    'CHECKPOINT': 'tiny.pth',
    'SRC': 'tiny.pth',
    'work_dirs/retinanet/pvt_small_1x/epoch_12.pth': 'tiny.pth',
    'epoch_12.pth': 'tiny.pth',
    'IMAGES': 'my_images',
    'my_images/': 'my_images',
    'IMAGE': 'street.jpg',
    'DST': 'dst.pth',
    'FORMAT': 'mmdet',
    'DIR': 'out',
}

SHORT = dict(test=ALONE, train=(*ALONE, 'train_cfg.max_epochs=1', 'train_dataloader.dataset.indices=8'))


@pytest.fixture
def folder(digits, tmp_path, monkeypatch):
    """A folder with what the commands speak of: data/digits, a checkpoint of a detector, one of PVT-Tiny, images."""
    from pvt_mm import PVT

    (tmp_path / 'data').mkdir()
    (tmp_path / 'data/digits').symlink_to(digits)
    (tmp_path / 'my_images').mkdir()
    image = cv2.imread(str(sorted((digits / 'coco/val2017').iterdir())[0]))
    for path in ('street.jpg', 'my_images/a.jpg'):
        cv2.imwrite(str(tmp_path / path), cv2.resize(image, (256, 256)))
    cfg = Config.fromfile(find_config('retinanet/pvt_nano_digits'))
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg.model)
    torch.save(
        dict(state_dict=model.state_dict(), meta=dict(dataset_meta=cfg.metainfo.to_dict())), tmp_path / 'tiny.pth'
    )
    torch.save(PVT('tiny', num_classes=1000).state_dict(), tmp_path / 'pvt_small.pth')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize('block', HERE, ids=lambda block: block.name)
def test_what_has_no_mark_runs(block, folder, command, capfd):
    for words in block.commands:
        before = set(folder.rglob('*'))
        capfd.readouterr()
        program, *args = [STANDS_FOR.get(word, word) for word in words]
        if program == 'python' and args[0].startswith('tools/'):
            program = Path(args[0]).stem
        else:
            assert program == 'pvt-mm', f'{" ".join(words)} does not run here: give its block a mark'
            program = args[0]
        settings = SHORT.get(program, ())
        if settings and '--cfg-options' not in args:
            settings = ('--cfg-options', *settings)
        assert not command(import_module(f'pvt_mm.commands.{program}'), *args[1:], *settings)
        assert set(folder.rglob('*')) - before or capfd.readouterr().out, f'{" ".join(words)} did nothing'
