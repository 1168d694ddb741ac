"""Writes the results into the tables of docs/performance.md: ``python -m benchmarks.summary``."""

import json
from pathlib import Path

from paper.tables import fill_section, markdown
from pvt_mm.models.archs import ARCHS

from .common import digits
from .measure import ROOT
from .peers import OURS, PEERS

RESULTS = Path(__file__).parent / 'results'
PAGE = ROOT / 'docs/performance.md'


def read(kind: str) -> list[dict]:
    """The kept results of a benchmark. What was measured again is taken from the newest folder of a date alone."""
    paths = [*sorted(RESULTS.glob(f'{kind}_*.json')), *sorted(RESULTS.glob(f'*/{kind}_*.json'))]
    results = [json.loads(path.read_text()) for path in sorted(paths, key=lambda path: path.name)]
    newest = {what(result, row): result for result in results for row in result['rows']}
    for result in results:
        result['rows'] = [row for row in result['rows'] if newest[what(result, row)] is result]
    return results


def what(result: dict, row: dict) -> tuple:
    """What a row is of, its model left out."""
    settings = (result.get(key) for key in ('arch', 'work', 'device', 'precision', 'compiled'))
    return (*settings, row.get('system'), row.get('work'), tuple(row['images']))


def setting(result: dict) -> str:
    """What a result was measured on and in."""
    return f'{result["device"]}, {result["precision"]}{", compiled" * result["compiled"]}'


def own(row: dict) -> str:
    return row.get('fails') or f'{digits(row["ms"])} ms, {row["mib"]:.0f} MiB'


def beside(row: dict | None, ours: dict) -> str:
    """How much faster ours is than a peer, and how much of its memory it takes."""
    if row is None or 'fails' in row or 'fails' in ours:
        return (row or {}).get('fails', '').split(':')[0]
    return f'{row["ms"] / ours["ms"]:.2f}x, {ours["mib"] / row["mib"]:.0%}'


def backbones(results: list[dict]) -> str:
    """A PVT's time and memory on images of each shape, without and with recomputed layers, and beside its peers."""
    measured = {row['model'] for result in results for row in result['rows']}
    lines, peers = [], [name for name in PEERS if name in measured - {OURS, 'pvt_mm, with_cp'}]
    for result in results:
        arch = result.get('arch', 'small')
        size = '' if arch == 'small' else f'{"PVT" if arch in ARCHS else "PVTv2"} {arch}, '
        work = f'{size}{result["work"]}, {setting(result)}'
        for ours in result['rows']:
            if ours['model'] not in peers:
                same = {row['model']: row for row in result['rows'] if row['images'] == ours['images']}
                lines.append(
                    [
                        work,
                        'x'.join(map(str, ours['images'])),
                        ours['model'],
                        own(ours),
                        *(beside(same.get(name), ours) for name in peers),
                    ]
                )
    return markdown(['work', 'images', 'ours', 'time, memory', *peers], lines)


def detectors(results: list[dict]) -> str:
    """The time and memory of each system with PVT-Small, and beside its peers."""
    lines, names = [], list(dict.fromkeys(row['backbone'] for result in results for row in result['rows']))
    for result in results:
        for ours in result['rows']:
            if ours['backbone'] == OURS:
                same = {
                    row['backbone']: row
                    for row in result['rows']
                    if all(row[key] == ours[key] for key in ('system', 'work', 'images'))
                }
                lines.append(
                    [
                        ours['system'],
                        f'{ours["work"]}, {setting(result)}',
                        'x'.join(map(str, ours['images'])),
                        own(ours),
                        *(beside(same[name], ours) for name in names if name != OURS),
                    ]
                )
    return markdown(['system', 'work', 'images', *names], lines) if lines else 'Not measured yet.'


def fill_page(page: str) -> str:
    """The text of docs/performance.md with its tables made anew."""
    page = fill_section(page, 'summary: backbones', backbones(read('backbone')))
    return fill_section(page, 'summary: detectors', detectors(read('detector')))


if __name__ == '__main__':
    PAGE.write_text(fill_page(PAGE.read_text()))
