"""docs/first_detector.ipynb runs from its first cell to its last, on fewer scenes."""

import json
import re
import shlex
from importlib import import_module

import matplotlib.pyplot as plt

from tests.common import ROOT

SHORT = {'SCENES, EPOCHS = 1600, 4': 'SCENES, EPOCHS = 32, 1', 'num_val=50': 'num_val=8'}


def test_every_cell_runs(command, monkeypatch, tmp_path):
    notebook = json.loads((ROOT / 'docs/first_detector.ipynb').read_text())
    text = '\n'.join(''.join(cell['source']) for cell in notebook['cells'] if cell['cell_type'] == 'code')
    for long, short in SHORT.items():
        assert long in text
        text = text.replace(long, short)

    def run(line: str) -> None:
        program, name, *args = shlex.split(line)
        assert program == 'pvt-mm' and not command(import_module(f'pvt_mm.commands.{name}'), *args)

    shown = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(plt, 'show', lambda: shown.append(plt.gcf().canvas.get_width_height()))
    exec(re.sub(r'^!(.*)$', r"run(f'\1')", text, flags=re.M), dict(run=run))
    assert len(shown) == 2 and (tmp_path / 'work_dirs/first_detector/epoch_1.pth').is_file()
    plt.close('all')


def test_it_is_kept_without_outputs_and_in_a_form_that_jupyter_reads():
    notebook = json.loads((ROOT / 'docs/first_detector.ipynb').read_text())
    assert (notebook['nbformat'], notebook['nbformat_minor']) == (4, 5)
    for cell in notebook['cells']:
        assert re.fullmatch(r'[\w-]+', cell['id']) and cell['metadata'] == {}
        assert cell['cell_type'] == 'markdown' or cell['outputs'] == [] and cell['execution_count'] is None
