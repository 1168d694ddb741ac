"""Charts as SVG text for an HTML page. Their ink is the text's colour of the page, so that they fit light and dark."""

import re
from collections.abc import Sequence
from io import StringIO

import numpy as np
from matplotlib import rc_context
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

COLOURS = ('#3b82f6', '#f97316', '#10b981', '#a855f7', '#ef4444', '#64748b')
MAX_POINTS = 400  # of a curve: each is the mean of as many neighbours as it takes
MAX_NAMES = 40  # classes that a confusion matrix names
MAX_NUMBERS = 13  # classes with whose matrix the numbers are written into the cells
_INK = '#010203'  # becomes the page's
_STYLE = {
    'svg.fonttype': 'none',
    'font.size': 10,
    'axes.prop_cycle': f'cycler("color", {list(COLOURS)})',
    'axes.spines.top': False,
    'axes.spines.right': False,
    'legend.frameon': False,
    'legend.fontsize': 9,
    'legend.labelcolor': _INK,
    **{f'{key}.color': _INK for key in ('text', 'xtick', 'ytick')},
    'axes.labelcolor': _INK,
    'axes.edgecolor': _INK,
}


def curves(
    lines: dict[str, tuple[Sequence[float], Sequence[float]]],
    xlabel: str,
    targets: dict[str, float] | None = None,
    markers: bool = False,
) -> str:
    """A chart of curves.

    Args:
        lines: The x and y of each, by its name.
        xlabel: What x is.
        targets: Levels to draw across, by their names; each in the colour of the curve at its place, dashed.
        markers: Whether to mark the points.
    """
    with rc_context(_STYLE):
        figure = Figure((4.6, 2.7), layout='constrained')
        axes = figure.add_subplot()
        for name, (x, y) in lines.items():
            x, y = (_thin(np.asarray(values, float)) for values in (x, y))
            axes.plot(x, y, label=name, linewidth=1.5, marker='o' if markers else None, markersize=3)
        for colour, (name, level) in zip(COLOURS, (targets or {}).items()):
            axes.axhline(level, label=name, color=colour, linestyle='--', linewidth=1)
        axes.set_xlabel(xlabel)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.2)
        if len(lines) + len(targets or {}) > 1:
            figure.legend(loc='outside upper left', ncols=3)
        return _svg(figure)


def _thin(values: np.ndarray) -> np.ndarray:
    size = -(-len(values) // MAX_POINTS)
    if size <= 1:
        return values
    whole = len(values) // size * size
    return values[:whole].reshape(-1, size).mean(1)


def heat_map(matrix: np.ndarray, names: Sequence[str]) -> str:
    """A confusion matrix (rows: truth), each row as parts of its sum."""
    parts = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    side = min(max(4.2, 1.2 + 0.22 * len(names)), 8)
    clear_to_blue = LinearSegmentedColormap.from_list('clear_to_blue', [(0.23, 0.51, 0.96, 0), (0.23, 0.51, 0.96, 1)])
    with rc_context(_STYLE):
        figure = Figure((side, side), layout='constrained')
        axes = figure.add_subplot()
        axes.imshow(parts, cmap=clear_to_blue, vmin=0, vmax=1)
        axes.set_xlabel('predicted')
        axes.set_ylabel('truth')
        if len(names) <= MAX_NAMES:
            short = [name if len(name) <= 14 else f'{name[:13]}…' for name in names]
            axes.set_xticks(range(len(names)), short, rotation=90 if max(map(len, short)) > 3 else 0)
            axes.set_yticks(range(len(names)), short)
        if len(names) <= MAX_NUMBERS:
            for (row, column), part in np.ndenumerate(parts):
                if matrix[row, column]:
                    text = str(matrix[row, column]) if matrix.max() < 1000 else f'{100 * part:.0f}%'
                    axes.text(column, row, text, ha='center', va='center', fontsize=7)
        return _svg(figure)


def _svg(figure: Figure) -> str:
    text = StringIO()
    no_date = dict.fromkeys(('Creator', 'Date', 'Format', 'Type'))
    figure.savefig(text, format='svg', transparent=True, metadata=no_date)
    svg = text.getvalue()
    svg = svg[svg.index('<svg') :].replace(_INK, 'currentColor')  # the XML header has no place in HTML
    return re.sub(r' (width|height)="[\d.]+pt"', '', svg, count=2)  # as wide as the page gives
