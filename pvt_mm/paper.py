"""The paper's tables and recipes, read from ``configs/paper.yml``."""
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

import yaml

CONFIGS = Path(__file__).parents[1] / 'configs'


@cache
def paper() -> dict:
    """All of ``configs/paper.yml``."""
    return yaml.safe_load((CONFIGS / 'paper.yml').read_text())


def recipe(row: str) -> dict:
    """What the paper says of how a row, '<folder>/<name>', is trained and tested."""
    merged = {}
    for entry in paper()['recipes']:
        if fnmatch(row, entry['match']):
            merged.update(entry)
    for entry in paper()['pretrained']:
        if fnmatch(row, entry['match']):
            merged['pretrained'] = entry['weights']
    return merged
