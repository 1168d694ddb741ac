"""The rows of the paper's tables, read from ``paper/paper.yml``."""

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from threading import Lock

import yaml
from mmengine.config import Config

from pvt_mm.errors import SettingError

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / 'configs'
_LOADING = Lock()  # mmengine loads one config at a time


@cache
def paper() -> dict:
    """The content of ``paper/paper.yml``."""
    return yaml.safe_load((ROOT / 'paper/paper.yml').read_text())


@dataclass(kw_only=True)
class Row:
    """A row of a table: one config of the repository, what it is, and the paper's figures for it.

    Attributes:
        system: The folder of its config: 'retinanet', 'mask_rcnn', 'semantic_fpn' ...
        name: The name of its config.
        metrics: The table's columns: each title with the metric's name in mmengine's log.
        family: 'PVT', 'ViT', 'ResNet' or 'ResNeXt'.
        counterpart: The config that takes its place on the embedded digits.
        digits: The system of that config, where it is not ``system``.
        ms_per_gflop: Milliseconds on one V100 per 10^9 multiply-adds, for the estimate of GPU-days.
        backbone: Its backbone's key in ``paper.yml``; of a row on the digits, as all that follows, empty.
        title: The backbone's name in the paper.
        size: The backbone's size within its family.
        schedule: '1x', '3x', '80k' ...
        weights: The checkpoint that it starts from; None where none is published.
        shape: The usual (height, width) of an image in training, in pixels.
        figures: The paper's figures, in the order of ``metrics``; a text where the paper has no figure.
        params: Trainable parameters in millions, from the paper.
        gflops: Multiply-adds of one image of ``shape`` in 10^9, from the paper.
        ms: Time of one image on a V100, from the paper.
        classifier: The backbone on ImageNet, from the paper: ``params`` in millions, top-1 ``error`` in percent.
        recipe: The settings in which it differs from the rows like it.
        tta: Whether it is tested with test-time augmentation.
        on_request: Whether it runs only when it is named.
        bar: The least that it must reach, by title.
    """

    system: str
    name: str
    metrics: dict[str, str]
    family: str
    counterpart: str
    ms_per_gflop: float
    digits: str = ''
    backbone: str = ''
    title: str = ''
    size: str | int = ''
    schedule: str = ''
    weights: str | None = None
    shape: tuple[int, int] | None = None
    figures: list = field(default_factory=list)
    params: float | None = None
    gflops: float | None = None
    ms: float | None = None
    classifier: dict[str, float] = field(default_factory=dict)
    recipe: dict = field(default_factory=dict)
    tta: bool = False
    on_request: bool = False
    bar: dict[str, float] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """'<system>/<name>'."""
        return f'{self.system}/{self.name}'

    @property
    def config(self) -> str:
        return f'configs/{self.key}.py'

    @property
    def needs_mmpretrain(self) -> bool:
        return self.system == 'classification'

    @property
    def expected(self) -> dict:
        """The paper's figures by title."""
        return dict(zip(self.metrics, self.figures))

    def load(self) -> Config:
        with _LOADING:
            return Config.fromfile(ROOT / self.config)


def table_rows(table: str) -> list[Row]:
    """All rows of a table in ``paper/paper.yml``, or of 'learn', the runs on the embedded digits."""
    if table == 'learn':
        learn = paper()['learn']
        return [
            _digits_row(system, family)
            for system, settings in learn['systems'].items()
            for family in settings.get('families', learn['families'])
        ]
    table = paper()['tables'][table]
    shared = {key: table[key] for key in ('system', 'digits', 'metrics', 'shape') if key in table}
    rows = []
    for name, settings in table['rows'].items():
        backbone = paper()['backbones'][settings['backbone']]
        rows.append(Row(name=name, **paper()['families'][backbone['family']], **{**shared, **backbone, **settings}))
    return rows


def _digits_row(system: str, family: str) -> Row:
    """The config of a system on the embedded digits that stands for a family of backbones."""
    settings, shared = paper()['learn']['systems'][system], paper()['families'][family]
    return Row(
        system=system,
        name=shared['counterpart'],
        metrics=settings['metrics'],
        family=family,
        bar=settings['bar'].get(family, {}),
        **shared,
    )


def counterparts(rows: list[Row]) -> list[Row]:
    """The rows on the embedded digits that take the place of ``rows``, each once."""
    return list({row.counterpart: _digits_row(row.digits or row.system, row.family) for row in rows}.values())


def select(rows: list[Row], wanted: list[str] | None) -> list[Row]:
    """Those of ``rows`` that are to be run: all but those on request, or the ``wanted`` ones.

    Args:
        rows: The rows of one table.
        wanted: Names of rows ('pvt_small_1x', or with the system 'retinanet/pvt_small_1x') or of backbones
            ('pvt_small': that backbone with every schedule).

    Raises:
        SettingError: No row has a name that is wanted.
    """
    if not wanted:
        return [row for row in rows if not row.on_request]
    for name in wanted:
        if not any(name in _names(row) for row in rows):
            raise SettingError(f'--rows {name}: there is no such row in {", ".join(row.name for row in rows)}')
    return [row for row in rows if not _names(row).isdisjoint(wanted)]


def _names(row: Row) -> set[str]:
    return {row.key, row.name, row.backbone}


def recipe(row: Row) -> dict:
    """The paper's training and test settings for a row."""
    settings = dict(weights=row.weights)
    for entry in paper()['recipes']:
        if all(_is(getattr(row, key), value) for key, value in entry['for'].items()):
            settings.update((key, value) for key, value in entry.items() if key != 'for')
    return settings | row.recipe


def _is(value: str | int, allowed: str | int | list) -> bool:
    return value in allowed if isinstance(allowed, list) else value == allowed
