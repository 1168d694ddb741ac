"""The report of real training runs, as text and as a browser shows it."""

import argparse
import html
import json
import logging
import re
import shutil
import subprocess
from collections import Counter
from types import SimpleNamespace

import pytest
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.registry import DATASETS, init_default_scope

from pvt_mm import Runner
from pvt_mm.commands import launch
from pvt_mm.engine.unreadable import guard_loading
from pvt_mm.engine.workers import Notes
from pvt_mm.report import ReportHook, page
from pvt_mm.report.hook import _resizes_truth
from tests.common import ALONE, ROOT

SECTIONS = ('curves', 'mistakes', 'classes', 'confusion', 'data', 'config', 'environment')
PAPER = '# Table 2: RetinaNet with PVT-Small, 1x schedule (12 epochs). AP 40.4 in the paper.\n'


def train(config, data_root, work_dir, **options) -> Runner:
    """Trains two epochs on 8 scenes."""
    shared = {key: int(value) if value.isdigit() else value == 'True' for key, value in (s.split('=') for s in ALONE)}
    short = {'train_cfg.max_epochs': 2, 'train_cfg.val_interval': 1, 'train_dataloader.dataset.indices': 8}
    args = argparse.Namespace(
        config=str(config),
        data_root=str(data_root),
        work_dir=str(work_dir),
        cfg_options={**shared, **short, 'default_hooks.checkpoint.interval': -1, **options},
        launcher='none',
        local_rank=0,
    )
    runner = Runner.from_cfg(launch.load_config(args))
    runner.message_hub.update_info('findings', ['class <3>: 7 objects'], resumed=False)
    runner.message_hub.update_info('skipped_images', 4, resumed=False)
    runner.train()
    return runner


@pytest.fixture(scope='module')
def detector(digits, tmp_path_factory):
    """The runner of a detector that was trained by a config of the paper's."""
    folder = tmp_path_factory.mktemp('detector')
    text = (ROOT / 'configs/retinanet/pvt_nano_digits.py').read_text()
    (folder / 'row.py').write_text(PAPER + text.replace("'../_base_", f"'{ROOT}/configs/_base_"))
    classwise = {'val_evaluator.classwise': True, 'model.test_cfg.score_thr': 0.0}
    return train(folder / 'row.py', digits / 'coco', folder / 'work', **classwise)


@pytest.fixture(scope='module')
def segmenter(digits, tmp_path_factory):
    folder = tmp_path_factory.mktemp('segmenter')
    return train('semantic_fpn/pvt_nano_digits', digits / 'ADEChallengeData2016', folder)


def report(runner) -> str:
    return (ROOT / runner.work_dir / 'report.html').read_text(encoding='utf-8')


def table(text: str, section: str) -> list[list[str]]:
    """The cells of the first table of a section."""
    found = re.search(rf'<section id="{section}">.*?<table>(.*?)</table>', text, re.DOTALL)[1]
    return [
        [
            html.unescape(re.sub(r'<.*?>', '', cell)).strip()
            for cell in re.findall(r'<t[hd].*?>(.*?)</t[hd]>', row, re.S)
        ]
        for row in re.findall(r'<tr>(.*?)</tr>', found, re.DOTALL)
    ]


def test_a_detectors_report_says_what_was_trained_and_how(detector):
    text = report(detector)
    assert re.findall(r'<section id="(\w+)">', text) == list(SECTIONS)
    assert 'Finished: epoch 2 of 2' in text and 'AP 40.4 in the paper.' in text and "the paper's 40.4" in text
    charts = re.findall(r'<h3>(.*?)</h3><svg', text)
    assert charts == ['box AP', 'Losses', 'Learning rate', 'Throughput, images/s']
    assert 'class &lt;3&gt;: 7 objects' in text and '4 images could not be read' in text
    head, train_row, val_row = table(text, 'data')
    assert head[:3] == ['dataset', 'images', 'objects'] and train_row[:2] == ['training', '8']
    truth = json.loads((ROOT / detector.cfg.val_evaluator.ann_file).read_text())['annotations']
    assert val_row[:3] == ['validation', '8', str(len(truth))]
    classes = table(text, 'classes')
    assert classes[0] == ['class', 'objects in training', 'in validation', 'AP', 'recall', 'precision']
    number = Counter(str(annotation['category_id'] - 1) for annotation in truth)
    assert {row[0]: int(row[2]) for row in classes[1:]} == {digit: number[digit] for digit in '0123456789'}
    changes = re.search(r'Changed by flags.*?</table>', text, re.DOTALL)[0]
    assert 'train_cfg.max_epochs' in changes and 'optim_wrapper' not in changes
    assert 'octave_base_scale=4' in text  # the config's own text


def test_a_segmenters_report_has_its_figures(segmenter):
    text = report(segmenter)
    assert re.findall(r'<section id="(\w+)">', text) == list(SECTIONS)
    assert '<h3>mIoU</h3>' in text and text.count('class="card picture"') == 8
    classes = table(text, 'classes')
    assert classes[0] == ['class', '% of pixels', 'IoU', 'recall', 'precision'] and len(classes) == 12
    miou = segmenter.message_hub.get_scalar('val/mIoU').current()
    ious = [float(row[2]) for row in classes[1:] if row[2] != '–']
    assert sum(ious) / len(ious) == pytest.approx(miou, abs=0.1)


def test_the_page_asks_for_nothing_outside_itself(detector, segmenter):
    for runner in (detector, segmenter):
        links = re.findall(r'(?:src|href|url)\s*[=(]\s*["\']?([^"\')> ]+)', report(runner))
        assert links and all(link.startswith(('data:image/', '#')) for link in links)
        assert not re.search(r'<(script|link|iframe|object)|@import', report(runner))


def test_a_report_that_fails_ends_no_training(detector, monkeypatch):
    before, said = report(detector), []
    monkeypatch.setattr(page, 'make_charts', lambda *_: 1 / 0)
    monkeypatch.setattr('pvt_mm.report.hook.print_log', lambda text, logger, level: said.append((text, level)))
    detector.call_hook('after_train')
    (line,) = said
    assert line[0].endswith('report.html was not written: ZeroDivisionError: division by zero')
    assert line[1] == logging.WARNING and report(detector) == before


def test_truth_of_another_size_than_the_predictions_is_not_compared(detector, monkeypatch):
    said = []
    monkeypatch.setattr('pvt_mm.report.hook.print_log', lambda text, *_: said.append(text))
    loop, hook = detector.val_loop, ReportHook()
    steps = loop.dataloader.dataset.pipeline.transforms
    monkeypatch.setattr(loop.dataloader.dataset.pipeline, 'transforms', [steps[0], steps[2], steps[1], steps[3]])
    monkeypatch.setattr(loop.evaluator, 'metrics', loop.evaluator.metrics[:1])
    hook.before_val(detector)
    assert len(loop.evaluator.metrics) == 1 and 'put LoadAnnotations behind Resize' in said[0]
    loop.dataloader.dataset.pipeline.transforms = steps
    hook.before_val(detector)
    assert len(loop.evaluator.metrics) == 2


def test_report_false_leaves_none(digits, tmp_path):
    runner = train('retinanet/pvt_nano_digits', digits / 'coco', tmp_path, report=False, **{'train_cfg.max_epochs': 1})
    assert not (tmp_path / 'report.html').exists() and not list(tmp_path.rglob('mistakes.json'))
    assert not any(isinstance(hook, ReportHook) for hook in runner.hooks)


def test_the_images_of_wrapped_datasets_are_counted_once(digits):
    init_default_scope('mmdet')
    cfg = Config.fromfile(ROOT / 'configs/detr/pvt_nano_digits.py')
    launch.set_data_root(cfg, str(digits / 'coco'))
    found = page.describe_dataset('training', DATASETS.build(cfg.train_dataloader.dataset))
    annotations = json.loads((digits / 'coco/annotations/instances_train2017.json').read_text())['annotations']
    assert (found['images'], found['times']) == (16, 200)
    assert sum(found['objects'].values()) == len(annotations)


@pytest.mark.parametrize(
    ('about', 'paper'),
    [
        (
            '# Mask R-CNN, multi-scale training.\n# Box AP 43.0, mask AP 39.9 in the paper.',
            {'box AP': 43, 'mask AP': 39.9},
        ),
        ('# Table 4. mIoU 39.8 in the paper.\n# 40k iterations instead.', {'mIoU': 39.8}),
        ('# AP 38.7 in the\n# paper.', {'box AP': 38.7}),
        ("# Twice the paper's learning rate. mIoU 41.9 in its model zoo.", {}),
        ('', {}),
    ],
)
def test_the_papers_figures_are_those_of_the_comment(about, paper, tmp_path):
    (tmp_path / 'a.py').write_text(f'{about}\nlr = 1\n')
    cfg = Config.fromfile(tmp_path / 'a.py')
    cfg.merge_from_dict({'lr': 2})
    found = page.describe_config(cfg)
    assert found['paper'] == paper and found['changes'] == [('lr', 1, 2)]


MEASURE = """
onload = () => {
  document.body.dataset.found = JSON.stringify([...document.querySelectorAll('iframe')].map(frame => {
    const page = frame.contentDocument, style = item => frame.contentWindow.getComputedStyle(item);
    return {
      width: page.documentElement.clientWidth,
      scrollWidth: page.documentElement.scrollWidth,
      sections: [...page.querySelectorAll('section')].filter(item => item.offsetHeight > 60).map(item => item.id),
      columns: style(page.querySelector('.grid')).gridTemplateColumns.split(' ').length,
      charts: [...page.querySelectorAll('.chart svg')].map(item => item.getBoundingClientRect().height),
      background: style(page.body).backgroundColor,
      ink: style(page.querySelector('.chart text')).fill,
      requests: frame.contentWindow.performance.getEntriesByType('resource').map(item => item.name)
        .filter(name => !name.startsWith('data:')),
    };
  }));
};
"""


@pytest.fixture(scope='module')
def browser():
    """Chromium's path."""
    return shutil.which('chromium') or pytest.skip('needs chromium (apt-get install chromium)')


def look(browser: str, text: str, folder, dark: bool) -> list[dict]:
    """What a headless browser shows of a page on a phone and on a desk."""
    frames = ''.join(
        f'<iframe srcdoc="{html.escape(text)}" width="{width}" height="900"></iframe>' for width in (390, 1200)
    )
    (folder / 'frames.html').write_text(f'<!DOCTYPE html><body><script>{MEASURE}</script>{frames}', encoding='utf-8')
    done = subprocess.run(
        [
            *(browser, '--headless', '--no-sandbox', '--disable-gpu', f'--user-data-dir={folder / "profile"}'),
            *('--virtual-time-budget=9000', f'--blink-settings=preferredColorScheme={int(not dark)}', '--dump-dom'),
            (folder / 'frames.html').as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    return json.loads(html.unescape(re.search(r'data-found="(.*?)"', done.stdout)[1]))


@pytest.mark.parametrize('run', ['detector', 'segmenter'])
def test_a_browser_shows_it_on_a_phone_and_on_a_desk(browser, run, request, tmp_path):
    phone, desk = look(browser, report(request.getfixturevalue(run)), tmp_path, dark=False)
    for shown, columns in ((phone, 1), (desk, 2)):
        assert shown['sections'] == list(SECTIONS) and shown['columns'] == columns
        assert shown['scrollWidth'] <= shown['width']  # nothing sticks out
        assert len(shown['charts']) == 4 and all(height > 100 for height in shown['charts'])
        assert shown['requests'] == []


def test_a_browser_shows_it_dark_where_that_is_preferred(browser, detector, tmp_path):
    def brightness(colour: str) -> int:
        return sum(map(int, re.findall(r'\d+', colour)[:3]))

    light, dark = (look(browser, report(detector), tmp_path, dark)[0] for dark in (False, True))
    assert brightness(light['background']) > 600 > 150 > brightness(light['ink'])
    assert brightness(dark['background']) < 150 < 600 < brightness(dark['ink'])


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg'])
@pytest.mark.parametrize(
    'order, resized', [(('LoadAnnotations', 'Resize'), True), (('Resize', 'LoadAnnotations'), False)]
)
def test_a_truth_that_the_pipeline_resizes_is_noticed(scope, order, resized):
    """Also where our Runner guards the step that loads it."""
    init_default_scope(scope)
    settings = dict(LoadAnnotations=dict(), Resize=dict(scale=(8, 8)))
    pipeline = Compose([dict(type=name, **settings[name]) for name in order])
    dataset = SimpleNamespace(pipeline=pipeline)
    guard_loading(dataset, Notes('train_dataloader', 0))
    assert _resizes_truth(dataset) is resized
