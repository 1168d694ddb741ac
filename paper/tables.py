"""The paper's tables in Markdown: the paper's figures beside the measured ones."""

from pvt_mm.errors import SettingError

from .rows import Row, paper, table_rows


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    return '\n'.join(f'| {" | ".join(line)} |' for line in [head, ['---'] * len(head), *rows]) + '\n'


def fill_section(text: str, name: str, content: str) -> str:
    """Replaces what stands in ``text`` between '<!-- NAME -->' and the next '<!-- end -->'.

    Raises:
        SettingError: ``text`` has no such section.
    """
    begin, end = f'<!-- {name} -->', '<!-- end -->'
    before, found, rest = text.partition(begin)
    if not found:
        raise SettingError(f'the page has no line {begin}: add it, and {end} below it, where the table belongs')
    _, _, after = rest.partition(end)
    return f'{before}{begin}\n\n{content.rstrip()}\n\n{end}{after}'


def fill_page(page: str, records: dict[str, dict]) -> str:
    """The text of docs/paper.md with its tables made anew."""
    page = fill_section(page, 'reproduce docs: tables', paper_tables(records))
    return fill_section(page, 'reproduce docs: digits', results_table(table_rows('learn'), records, '../'))


def paper_tables(records: dict[str, dict]) -> str:
    """All tables of the paper for a page in docs/: every row with the paper's main figures and the measured ones."""
    parts = []
    for name, table in paper()['tables'].items():
        main = [title for title, key in table['metrics'].items() if key.endswith(('mAP', 'mIoU', 'top1'))]
        columns = [f'{title}, {whose}' for title in main for whose in ('paper', 'measured')]
        rows, lines = table_rows(name), []
        classifiers = any(row.classifier for row in rows)
        gflops = table['system'] == 'classification'  # which Table 1 is about
        if classifiers:
            columns = ['classifier (M), paper', 'top-1 error (%), paper', *columns]
        if gflops:
            columns = ['GFLOPs, paper', *columns]
        for row in rows:
            measured = records.get(row.key, {}).get('metrics', {})
            figures = [str(figure) for title in main for figure in (row.expected[title], measured.get(title, ''))]
            if classifiers:
                figures = [str(row.classifier[key]) for key in ('params', 'error')] + figures
            if gflops:
                figures = [str(row.gflops), *figures]
            lines.append([row.title, f'[{row.name}](../{row.config})', str(row.params or ''), *figures])
        text = markdown(['backbone', 'config', 'parameters (M), paper', *columns], lines)
        parts.append(f'**{table["title"]}**\n\n{text}')
    return '\n'.join(parts)


def results_table(rows: list[Row], records: dict[str, dict], prefix: str = '') -> str:
    """The rows with all their scores, and how each was measured.

    Args:
        rows: The rows of one table.
        records: The measured results, by '<system>/<name>'; a row without one is shown as unfinished.
        prefix: Path from the table's file to the repository's root, for the links.
    """
    titles = list(dict.fromkeys(title for row in rows for title in row.metrics))
    columns = [f'{title} (paper / measured)' if any(row.figures for row in rows) else title for title in titles]
    bars = any(row.bar for row in rows)
    lines = []
    for row in rows:
        record = records.get(row.key)
        cells = [format_cell(title, row, record) if title in row.metrics else '' for title in titles]
        if bars:
            cells.append(', '.join(f'{title} {bar:g}' for title, bar in row.bar.items()))
        label = f'{row.title} [{row.key}]({prefix}{row.config})'.strip()
        cells += [format_duration(record), format_origin(record)] if record else ['', 'unfinished']
        lines.append([label, *cells])
    return markdown(['row', *columns, *(['required'] if bars else []), 'training', 'run'], lines)


def format_cell(title: str, row: Row, record: dict | None) -> str:
    """'paper / measured (difference)'; for the digits, where the paper has no figure, 'measured'."""
    measured = record['metrics'].get(title) if record else None
    shown = '' if measured is None else f'{measured:g}'
    expected = row.expected.get(title)
    if expected is None:
        return shown
    if isinstance(expected, str) or measured is None:
        return f'{expected} / {shown}'.rstrip()
    return f'{expected} / {shown} ({measured - expected:+.1f})'


def format_duration(record: dict) -> str:
    minutes = record['training_seconds'] / 60
    return f'{minutes:.1f} min' if minutes < 120 else f'{minutes / 60:.1f} h'


def format_origin(record: dict) -> str:
    """On what machine, with which seed, commit and settings a record was measured."""
    parts = [record['hardware']]
    if record.get('rows_at_a_time', 1) > 1:
        parts.append(f'{record["rows_at_a_time"]} rows at a time')
    if record['accumulated_steps'] > 1:
        parts.append(f'{record["accumulated_steps"]} steps accumulated')
    return ', '.join([*parts, f'seed {record["seed"]}', record['commit'], *record['options']])
