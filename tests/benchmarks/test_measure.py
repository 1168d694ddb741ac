from benchmarks.measure import interleaved


def test_steps_take_turns_and_the_first_turn_is_not_timed():
    done = []
    times = interleaved({'a': lambda: done.append('a'), 'b': lambda: done.append('b')}, 'cpu', runs=2)
    assert done == ['a', 'b'] * 3 and len(times['a']) == len(times['b']) == 2


def test_short_work_is_run_for_as_long_as_is_asked():
    times = interleaved({'a': lambda: None}, 'cpu', runs=2, seconds=0.01)
    assert len(times['a']) > 2


def test_no_work_takes_no_time(monkeypatch):
    monkeypatch.setattr('benchmarks.measure.time.perf_counter', iter([0.0]).__next__)
    assert interleaved({}, 'cpu', runs=2, seconds=10) == {}
