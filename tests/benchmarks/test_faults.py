"""The short form of ``python -m benchmarks.faults``."""

import json
import random

import pytest

from benchmarks.faults import SCENARIOS, Run, Tally, kill_runs, make_config
from benchmarks.summary import RESULTS
from pvt_mm.data.digits import write_digits
from tests.common import ROOT
from tests.forked import Forked


@pytest.mark.parametrize('name', SCENARIOS)
def test_a_scenario_has_the_same_config_however_many_came_before(name):
    """The settings that scenarios share stay whole."""
    by_iterations = 'by iterations' in name
    for _ in range(2):
        loop = make_config(name).train_cfg
        assert loop.type == ('IterBasedTrainLoop' if by_iterations else 'EpochBasedTrainLoop')
        assert ('max_epochs' in loop) != by_iterations


def test_the_page_shows_the_kept_campaign_in_which_all_held():
    kept = json.loads((RESULTS / 'faults_cpu_float32.json').read_text())
    table = (RESULTS / 'faults_cpu_float32.md').read_text().partition('\n\n')[0]
    tallies = [Tally(**tally) for tally in kept['scenarios'].values()]
    assert table in (ROOT / 'docs/reliability.md').read_text()
    assert all(tally.holds() for tally in tallies) and sum(tally.kills for tally in tallies) >= 60


@pytest.mark.slow
def test_runs_that_are_killed_eight_times_end_as_if_nothing_had_happened(tmp_path, monkeypatch):
    """RetinaNet with 2 workers by epochs, and Semantic FPN by iterations with accumulation and averaged weights."""

    def fork(run: Run, command: list[str], env: dict[str, str]) -> Forked:
        run.log.write_text('')
        return Forked('train.py', command[2:], env, str(run.log), str(run.log))

    monkeypatch.setattr(Run, 'popen', fork)
    random.seed(0)
    write_digits(tmp_path / 'digits', num_train=16, num_val=8, size=96)
    faults = []
    tallies = [scenario.tally for scenario in kill_runs(tmp_path, 8, faults).values()]
    assert not faults and all(tally.holds() for tally in tallies)
    assert sum(tally.kills for tally in tallies) == 8 and sum(tally.resumed for tally in tallies) > 0
