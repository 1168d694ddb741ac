"""The paper's tables and recipes, read from ``paper/paper.yml``."""

from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from threading import Lock

import yaml
from mmengine.config import Config

from pvt_mm.errors import SettingError

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / 'configs'
# What trains in a row's place at --scale digits, by the beginning of its name.
DIGITS = {'pvt': 'pvt_nano_digits', 'r': 'r18_nano_digits', 'x': 'r18_nano_digits', 'vit': 'vit_nano_digits'}
_LOADING = Lock()  # mmengine loads one config at a time


@cache
def paper() -> dict:
    """All of ``paper/paper.yml``."""
    return yaml.safe_load((ROOT / 'paper/paper.yml').read_text())


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


@dataclass
class Row:
    """One run: a config of the repository and what the paper says of it."""

    folder: str
    name: str
    metrics: dict[str, str]  # a column's title: the metric's name in mmengine's log
    backbone: str = ''
    paper: list = field(default_factory=list)
    bar: dict[str, float] = field(default_factory=dict)
    tta: bool = False

    @property
    def config(self) -> str:
        return f'configs/{self.folder}/{self.name}.py'

    def load(self) -> Config:
        with _LOADING:
            return Config.fromfile(ROOT / self.config)


def find_rows(table: str, wanted: list[str] | None = None, scale: str = 'paper') -> list[Row]:
    """The rows of a table, or of ``learn``, the eight runs on the embedded digits.

    Args:
        table: A table's name in ``paper/paper.yml`` that has configs, or 'learn'.
        wanted: Rows by their config's name ('pvt_small_1x') or its backbone's ('pvt_small': with all schedules).
        scale: 'digits' puts each row's counterpart on the embedded digits in its place.

    Raises:
        SettingError: The table has no such row, or a row no counterpart.
    """
    if table == 'learn':
        rows = [
            Row(folder, name, **settings)
            for folder, settings in paper()['learn'].items()
            for name in ('pvt_nano_digits', 'r18_nano_digits')
        ]
    else:
        settings = paper()['tables'][table]
        rows = [
            Row(settings['folder'], name, settings['metrics'], row['backbone'], row['paper'], tta=row.get('tta', False))
            for name, row in settings['rows'].items()
        ]
    for name in wanted or []:
        if not any(name in (row.name, row.name.rpartition('_')[0]) for row in rows):
            raise SettingError(f'{table} has no row {name!r}; it has {", ".join(row.name for row in rows)}')
    rows = [row for row in rows if not wanted or row.name in wanted or row.name.rpartition('_')[0] in wanted]
    if scale == 'digits' and table != 'learn':
        counterparts = {}
        for row in rows:
            name = next(name for start, name in sorted(DIGITS.items(), reverse=True) if row.name.startswith(start))
            counterparts[name] = Row(row.folder, name, **paper()['learn'][row.folder])
        rows = list(counterparts.values())
    return rows
