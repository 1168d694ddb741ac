"""The scalars that a work directory's training runs logged."""

import json
from pathlib import Path


def read_history(work_dir: str | Path) -> tuple[list[dict], list[dict]]:
    """Reads what mmengine's LocalVisBackend wrote, that of the runs that a resumed run goes on from included.

    What an earlier run logged past the place where a later one starts is left out.

    Args:
        work_dir: The folder with a folder for each run, named by the time of its start.

    Returns:
        The training's entries and the evaluations', oldest first. ``step`` of each is the training iteration.
    """
    training, evaluations = [], []
    for path in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
        entries = list(_entries(path))
        steps = [entry['step'] for entry in entries if 'lr' in entry or 'loss' in entry]
        if not steps:
            continue  # it only tested
        training = [entry for entry in training if entry['step'] < steps[0]]
        evaluations = [entry for entry in evaluations if entry['step'] < steps[0]]
        step = 0
        for entry in entries:
            if 'lr' in entry or 'loss' in entry:
                step = entry['step']
                training.append(entry)
            else:
                evaluations.append(dict(entry, step=step))  # an evaluation's own step can be the epoch
    return training, evaluations


def _entries(path: Path):
    for line in path.read_text().splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # a run that was killed leaves half a line
        if isinstance(entry, dict) and isinstance(entry.get('step'), int):
            yield entry
