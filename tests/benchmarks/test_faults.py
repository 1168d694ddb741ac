"""The short form of ``python -m benchmarks.faults``."""

import random

import pytest

from benchmarks.faults import kill_runs
from pvt_mm.data.digits import write_digits


@pytest.mark.slow
def test_runs_that_are_killed_eight_times_end_as_if_nothing_had_happened(tmp_path):
    """RetinaNet with 2 workers by epochs, and Semantic FPN by iterations with accumulation and averaged weights."""
    random.seed(0)
    write_digits(tmp_path / 'digits', num_train=16, num_val=8, size=96)
    faults = []
    tallies = [scenario.tally for scenario in kill_runs(tmp_path, 8, faults).values()]
    assert not faults and all(tally.holds() for tally in tallies)
    assert sum(tally.kills for tally in tallies) == 8 and sum(tally.resumed for tally in tallies) > 0
