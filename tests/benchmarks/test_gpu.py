"""That one command measures on a GPU, tried on a CPU."""

import json
import os
import sys
import time
from argparse import Namespace
from multiprocessing import get_context
from types import SimpleNamespace

import pytest

from benchmarks import gpu, summary
from benchmarks.learning import beside
from benchmarks.parity import BOUNDS
from pvt_mm.errors import SettingError


@pytest.fixture
def args(tmp_path, monkeypatch) -> Namespace:
    monkeypatch.setattr(gpu, 'LOGS', tmp_path / 'logs')
    return Namespace(coco=tmp_path / 'coco', out=tmp_path, tiny=False)


def become(main, args, monkeypatch, seconds: float) -> str:
    """What becomes of a part whose benchmark is ``main``."""
    monkeypatch.setitem(sys.modules, 'benchmarks.made_up', SimpleNamespace(main=main))
    return gpu.run(gpu.Part('a part', 1, 'made_up', '--flag {coco}'), seconds, get_context('fork'), args)


def test_a_part_that_takes_too_long_is_cut_off_and_keeps_what_it_had(args, monkeypatch, tmp_path):
    def main():
        (tmp_path / 'figure.md').write_text(' '.join(sys.argv))
        time.sleep(60)

    assert become(main, args, monkeypatch, 2) == 'cut off after its 2 s'
    assert (tmp_path / 'figure.md').read_text() == f'made_up.py --flag {tmp_path}/coco --out {tmp_path}'


def test_a_part_that_fails_says_why_and_stops_no_other(args, monkeypatch):
    def main():
        os.write(2, b'a line before\nthe reason\n')
        sys.exit(1)

    assert become(main, args, monkeypatch, 60) == 'failed: the reason'
    assert become(lambda: None, args, monkeypatch, 60) == 'done'


def test_what_is_left_out_is_said(args):
    parts = {part.module: part for part in gpu.PARTS}
    assert 'no COCO in' in gpu.missing(parts['learning'], args)
    (args.coco / 'annotations').mkdir(parents=True)
    assert gpu.missing(parts['learning'], args) is None


def test_losses_are_set_beside_those_of_the_same_iterations():
    row = beside('resumed', {2: 4.0, 3: 1.0}, {1: 8.0, 2: 4.0, 3: 2.0})
    assert row == dict(run='resumed', first=2, last=3, difference_at_first=0.0, largest_difference=0.5)
    with pytest.raises(SettingError, match='resumed: its 1 iterations are none of the 1'):
        beside('resumed', {9: 1.0}, {1: 8.0})


def test_the_newest_figures_are_in_the_tables(tmp_path, monkeypatch):
    monkeypatch.setattr(summary, 'RESULTS', tmp_path)
    rows = [dict(images=[batch, 3, 64, 64], model='pvt_mm', ms=10.0 * batch, mib=1.0) for batch in (1, 2)]
    result = dict(work='forward', device='cuda', precision='float16', compiled=False)
    for folder, measured in (('.', rows), ('2026-01-02_0900', [dict(rows[0], ms=7.0)])):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / 'backbone_forward_cuda_float16.json').write_text(json.dumps(dict(result, rows=measured)))
    table = summary.backbones(summary.read('backbone'))
    assert '7.0 ms' in table and '20.0 ms' in table and '10.0 ms' not in table


@pytest.mark.slow
def test_all_parts_run_and_keep_their_figures(tool, digits, tmp_path):
    done = tool('../benchmarks/gpu.sh', '--tiny', '--coco', digits / 'coco', '--out', tmp_path / 'out')
    outcomes = [line.split(' (')[0] for line in done.stdout.splitlines()]
    for part in gpu.PARTS:
        expected = 'done' if part.tiny else 'left out: one before runs the same code'
        assert f'{part.name}: {expected}' in outcomes, done.stdout
    assert (tmp_path / 'out/README.md').read_text().count('| done |') == sum(
        part.tiny is not None for part in gpu.PARTS
    )
    kept = {path.stem: json.loads(path.read_text()) for path in (tmp_path / 'out').glob('*.json')}
    for precision, bound in BOUNDS.items():
        cases = kept[f'parity_cpu_{precision}']['rows']
        assert len(cases) == 1 and all(0 < max(row['errors']) < bound for row in cases)
    resumed, group = kept['learning_retinanet_cpu_float32']['rows']
    assert resumed['largest_difference'] == 0 and resumed['first'] > 1
    assert group['difference_at_first'] < 1e-5 and group['first'] == 1
    assert kept['kernels_cpu_float32']['rows'][0]['kernels'][0]['ms'] > 0
    assert kept['data_retinanet_cpu_float32']['given'] > 0
    for name in ('backbone_forward_cpu_float32', 'detector_cpu_float32'):
        assert all(row['ms'] > 0 for row in kept[name]['rows'])
