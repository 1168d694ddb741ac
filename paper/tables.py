"""The tables of the paper's rows: the paper's figures beside the measured ones, in Markdown."""

import torch

from pvt_mm.commands.get_flops import count_multiply_adds
from pvt_mm.errors import SettingError
from pvt_mm.models import PVT

from .rows import Row, find_rows, paper


def cell(title: str, row: Row, record: dict | None) -> str:
    """'paper / measured (difference)'; of the digits, 'measured'."""
    measured = record['metrics'].get(title) if record else None
    shown = '' if measured is None else f'{measured:g}'
    if not row.paper:
        return shown
    expected = dict(zip(row.metrics, row.paper)).get(title)
    if isinstance(expected, (int, float)) and measured is not None:
        return f'{expected:.1f} / {shown} ({measured - expected:+.1f})'
    return (
        f'{expected:.1f} /{" " + shown if shown else ""}'
        if isinstance(expected, (int, float))
        else f'{expected} / {shown}'
    )


def table_of(rows: list[Row], records: dict[str, dict], prefix: str = '') -> str:
    """The rows as a Markdown table.

    Args:
        records: What was measured, by '<folder>/<name>'; a row that is not among them is unfinished.
        prefix: From the table's file to the repository's root, for the links.
    """
    titles = list(dict.fromkeys(title for row in rows for title in row.metrics))
    names = [f'{title} (paper / measured)' if any(row.paper for row in rows) else title for title in titles]
    bars = any(row.bar for row in rows)
    head = ['row', *names, *(['asked for'] if bars else []), 'training', 'run']
    lines = [head, ['---'] * len(head)]
    for row in rows:
        record = records.get(f'{row.folder}/{row.name}')
        cells = [cell(title, row, record) if title in row.metrics else '' for title in titles]
        if bars:
            asked = ', '.join(f'{title} {bar:g}' for title, bar in row.bar.items())
            cells.append(asked if row.name.startswith('pvt') else '')
        label = ' '.join(filter(None, [row.backbone, f'[{row.folder}/{row.name}]({prefix}{row.config})']))
        lines.append([label, *cells, duration(record) if record else '', origin(record) if record else 'unfinished'])
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines) + '\n'


def readme_tables(records: dict[str, dict]) -> str:
    """Every row of every table with its config, the paper's figures and the measured ones: the README's tables."""
    parts = [table1()]
    for name, table in paper()['tables'].items():
        if 'folder' not in table:
            continue
        rows = find_rows(name)
        main = [title for title, key in rows[0].metrics.items() if key.endswith(('mAP', 'mIoU'))]
        head = [
            'backbone',
            'config',
            'parameters (M), paper',
            *(f'{t}, {whose}' for t in main for whose in ('paper', 'measured')),
        ]
        lines = [head, ['---'] * len(head)]
        for row in rows:
            expected, record = dict(zip(row.metrics, row.paper)), records.get(f'{row.folder}/{row.name}')
            figures = [
                str(figure)
                for title in main
                for figure in (expected[title], record['metrics'].get(title, '') if record else '')
            ]
            params = table['rows'][row.name].get('params', '')
            lines.append([row.backbone, f'[{row.name}]({row.config})', str(params), *figures])
        parts.append(f'**{table["title"]}**\n\n' + '\n'.join(f'| {" | ".join(line)} |' for line in lines))
    return '\n\n'.join(parts)


def table1() -> str:
    """The PVTs of Table 1: what the paper says, and what is counted here."""
    table = paper()['tables']['table1']
    lines = [
        '| backbone | model | parameters (M), paper | counted | GFLOPs at 224x224, paper | counted | '
        'top-1 error (%), paper | measured |',
        '|---' * 8 + '|',
    ]
    for name, row in table['models'].items():
        with torch.device('meta'):
            model = PVT(row['arch'], num_classes=1000).eval()
        params = sum(p.numel() for p in model.parameters()) / 1e6
        gflops = sum(count_multiply_adds(model, (224, 224)).values()) / 1e9
        lines.append(
            f"| {name} | `PVT('{row['arch']}', num_classes=1000)` | {row['params']} | {params:.2f} | "
            f'{row["gflops"]} | {gflops:.2f} | {row["error"]} | |'
        )
    return f'**{table["title"]}**\n\n' + '\n'.join(lines)


def fill_section(text: str, name: str, content: str) -> str:
    """``text`` with new content between '<!-- NAME -->' and the '<!-- end -->' after it.

    Raises:
        SettingError: There is no such place in it.
    """
    begin, end = f'<!-- {name} -->', '<!-- end -->'
    before, found, rest = text.partition(begin)
    if not found:
        raise SettingError(f'there is no line {begin} to put the table behind')
    _, _, after = rest.partition(end)
    return f'{before}{begin}\n\n{content.rstrip()}\n\n{end}{after}'


def fill_readme(readme: str, records: dict[str, dict]) -> str:
    """The README's text with its tables made anew."""
    readme = fill_section(readme, 'reproduce.py: rows', readme_tables(records))
    return fill_section(readme, 'reproduce.py: learn', table_of(find_rows('learn'), records))


def duration(record: dict) -> str:
    minutes = record['training_seconds'] / 60
    return f'{minutes:.1f} min' if minutes < 120 else f'{minutes / 60:.1f} h'


def origin(record: dict) -> str:
    accumulated = f', {record["accumulated_steps"]} steps accumulated' if record['accumulated_steps'] > 1 else ''
    at_a_time = f', {record["rows_at_a_time"]} rows at a time' if record.get('rows_at_a_time', 1) > 1 else ''
    changed = f', {" ".join(record["options"])}' if record['options'] else ''
    return f'{record["hardware"]}{at_a_time}{accumulated}, seed {record["seed"]}, {record["commit"]}{changed}'
