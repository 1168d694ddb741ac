"""The metafiles: up to date, in OpenMMLab's form, and with nothing that is not there."""

import re

import pytest
import yaml
from modelindex.load_model_index import load

from paper.metafiles import metafiles
from paper.rows import ROOT, paper, table_rows

ENTRIES = [
    entry
    for file in yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']
    for entry in yaml.safe_load((ROOT / file).read_text())['Models']
]


def test_the_metafiles_are_as_paper_yml_says():
    found = {f'{path.relative_to(ROOT)}' for path in [ROOT / 'model-index.yml', *ROOT.glob('configs/*/metafile.yml')]}
    assert found == set(metafiles())
    for path, content in metafiles().items():
        assert (ROOT / path).read_text() == content, f'{path} is out of date: python -m paper.metafiles'


def test_every_row_has_an_entry_with_its_config_and_its_papers_figures():
    by_config = {entry['Config']: entry for entry in ENTRIES}
    assert len(by_config) == len(ENTRIES) == len({entry['Name'] for entry in ENTRIES})
    rows = [row for table in paper()['tables'] for row in table_rows(table)]
    assert {row.config for row in rows} == set(by_config)
    for row in rows:
        assert (ROOT / row.config).is_file()
        results = by_config[row.config].get('Results', [])
        figures = [figure for result in results for figure in result['Metrics'].values()]
        main = [title for title in row.metrics if re.fullmatch(r'(box |mask )?AP|mIoU', title)]
        assert row.on_request or set(figures) >= {row.expected[title] for title in main}
        if row.needs_mmpretrain and row.name != 'r18_300e':  # whose figure is of another recipe
            assert figures == [pytest.approx(100 - row.expected['top-1 error'])]


def test_model_index_reads_them_without_a_complaint():
    """The library through which ``mim`` reads them."""
    index = load(str(ROOT / 'model-index.yml'))
    assert not index.check(silent=True) and len(index.models) == len(ENTRIES)
    for model in index.models:
        assert model.in_collection in {collection.name for collection in index.collections}
        assert not {'Name', 'Config', 'Metadata', 'Paper'} - set(model.data)


def test_they_say_what_openmmlabs_own_say():
    """No key, task or dataset that mmdet's and mmseg's metafiles do not have, but for the AP of foreign weights."""
    import mmdet
    import mmseg

    said = set()
    for library, name in ((mmdet, 'metafile.yml'), (mmseg, 'metafile.yaml')):
        for path in (ROOT / library.__path__[0] / '.mim/configs').glob(f'*/{name}'):
            content = yaml.safe_load(path.read_text())
            said |= words(content.get('Models', []) if isinstance(content, dict) else content)
    allowed = {'key box AP of the weights', 'key Iterations', 'key FLOPs', 'key Parameters'}  # the latter: mmpretrain's
    allowed |= {'Image Classification Top 1 Accuracy', 'dataset ImageNet-1k'}  # mmpretrain's
    assert words(ENTRIES) - said <= allowed


def words(entries: list[dict]) -> set[str]:
    found = set()
    for entry in entries:
        found |= {f'key {key}' for part in (entry, entry.get('Metadata') or {}) for key in part}
        results = entry.get('Results') or []
        for result in [results] if isinstance(results, dict) else results:
            found |= {f'{result["Task"]} {key}' for key in result.get('Metrics') or {}}
            found.add(f'dataset {result["Dataset"]}')
    return found


def test_weights_md_lists_the_public_weights():
    page = (ROOT / 'docs/weights.md').read_text()
    commands = set(re.findall(r'tools/test.py (configs/\S+) (https\S+)', page))
    assert commands == {(entry['Config'], entry['Weights']) for entry in ENTRIES if 'Weights' in entry}
    for entry in ENTRIES:
        if 'Weights' in entry:
            (result,) = entry['Results']
            figures = f'| {result["Metrics"]["box AP"]} | {entry["Metadata"]["box AP of the weights"]} |'
            assert figures in page, entry['Name']
