import json

from pvt_mm.report.history import read_history


def write(work_dir, name: str, *entries) -> None:
    path = work_dir / name / 'vis_data/scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text('\n'.join(entry if isinstance(entry, str) else json.dumps(entry) for entry in entries))


def step(number: int, loss: float) -> dict:
    return dict(lr=0.1, loss=loss, step=number)


def test_a_resumed_run_takes_the_place_of_what_came_after_its_start(tmp_path):
    write(tmp_path, '20260101_000000', step(10, 3.0), {'mIoU': 1, 'step': 1}, step(20, 2.0), {'mIoU': 2, 'step': 2})
    write(tmp_path, '20260102_000000', step(20, 1.0), {'mIoU': 3, 'step': 2}, '{"loss": 1, "st')
    training, evaluations = read_history(tmp_path)
    assert [(entry['step'], entry['loss']) for entry in training] == [(10, 3.0), (20, 1.0)]
    # an evaluation stands at the iteration that was logged before it
    assert [(entry['step'], entry['mIoU']) for entry in evaluations] == [(10, 1), (20, 3)]


def test_a_run_that_only_tested_and_an_empty_folder_add_nothing(tmp_path):
    assert read_history(tmp_path) == ([], [])
    write(tmp_path, '20260101_000000', step(10, 3.0))
    write(tmp_path, '20260102_000000', {'mIoU': 3, 'step': 0})
    assert [len(entries) for entries in read_history(tmp_path)] == [1, 0]
