"""Running the rows of the tables, and writing the tables."""

import json
import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS, init_default_scope
from torch import nn

from paper import reproduce
from paper.reproduce import PAGE
from paper.rows import Row, counterparts, paper, select, table_rows
from paper.run import batch_options, below_bar, gpu_days, percent, read_records, share_batch, training_seconds
from paper.tables import fill_page, results_table
from pvt_mm.errors import SettingError
from tests.common import ROOT


def load(config: str) -> Config:
    return Config.fromfile(ROOT / 'configs' / f'{config}.py')


@pytest.mark.parametrize(
    'config, gpus, shared',
    [
        ('retinanet/pvt_small_1x', 8, (2, 1)),
        ('retinanet/pvt_small_1x', 4, (2, 2)),
        ('retinanet/pvt_small_1x', 1, (2, 8)),
        ('retinanet/pvt_small_1x', 16, (1, 1)),
        ('semantic_fpn/r50_80k', 4, (4, 1)),
        ('semantic_fpn/r50_80k', 8, (2, 1)),
        ('semantic_fpn/pvt_tiny_40k', 4, (4, 2)),
        ('retinanet/pvt_nano_digits', 1, (8, 1)),
    ],
)
def test_the_batch_is_kept_on_any_number_of_gpus(config, gpus, shared):
    cfg = load(config)
    assert share_batch(cfg, gpus) == shared
    assert gpus * shared[0] * shared[1] == cfg.auto_scale_lr.base_batch_size


def test_a_batch_that_cannot_be_shared_raises():
    with pytest.raises(
        SettingError, match='--gpus 3: the batch of 16 images does not split evenly, use 1, 2, 4, 8, 16'
    ):
        share_batch(load('retinanet/pvt_small_1x'), 3)


def rates(cfg: Config, updates: list[int]) -> list[float]:
    """The learning rates at the given updates of the weights."""
    init_default_scope(cfg.default_scope)
    steps = cfg.optim_wrapper.get('accumulative_counts', 1)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    optimizer.step()
    schedulers = [PARAM_SCHEDULERS.build(dict(s, optimizer=optimizer)) for s in cfg.param_scheduler if not s.by_epoch]
    found = []
    for iteration in range(max(updates) * steps + 1):
        if iteration % steps == 0 and iteration // steps in updates:
            found.append(optimizer.param_groups[0]['lr'])
        for scheduler in schedulers:
            scheduler.step()
    return found


@pytest.mark.parametrize(
    'config, updates',
    [('retinanet/pvt_small_1x', [0, 100, 250, 499, 501]), ('semantic_fpn/pvt_small_40k', [0, 1000, 39000])],
)
def test_with_accumulated_steps_the_learning_rate_of_an_update_stays(config, updates):
    whole, accumulated = load(config), load(config)
    options = dict(option.split('=') for option in batch_options(accumulated, 2))
    accumulated.merge_from_dict({key: int(value) for key, value in options.items()})
    assert accumulated.optim_wrapper.accumulative_counts == 4
    assert rates(accumulated, updates) == pytest.approx(rates(whole, updates), rel=0.01)
    if 'max_iters' in whole.train_cfg:
        assert accumulated.train_cfg.max_iters == 4 * whole.train_cfg.max_iters
        assert accumulated.default_hooks.checkpoint.interval == 4 * whole.default_hooks.checkpoint.interval


def names(rows: list[Row]) -> list[str]:
    return [row.name for row in rows]


def test_rows_are_selected_by_name_and_by_backbone():
    table2 = table_rows('table2')
    assert names(select(table2, ['pvt_small', 'r50_3x'])) == ['pvt_small_1x', 'r50_3x', 'pvt_small_3x']
    assert [row.key for row in select(table_rows('learn'), ['detr/r18_nano_digits'])] == ['detr/r18_nano_digits']
    assert select(table2, None) == table2 and len(table2) == 18 and len(table_rows('learn')) == 15
    for name in ('r18', 'pvt'):
        with pytest.raises(SettingError, match=f'--rows {name}: there is no such row in r50_50e, pvt_small_50e'):
            select(table_rows('table5'), [name])


def test_a_row_that_the_paper_could_not_run_runs_only_when_named():
    table6 = table_rows('table6')
    assert names(table6) == ['vit_small_p4_1x', 'vit_small_p32_1x', 'pvt_small_1x']
    assert names(select(table6, None)) == ['vit_small_p32_1x', 'pvt_small_1x']
    assert names(select(table6, ['vit_small_p4'])) == ['vit_small_p4_1x']


def test_every_row_has_a_counterpart_on_the_digits():
    for table in paper()['tables']:
        for row in counterparts(table_rows(table)):
            assert (ROOT / row.config).is_file()
    assert names(counterparts(table_rows('table2'))) == ['r18_nano_digits', 'pvt_nano_digits']
    assert names(counterparts(table_rows('table6'))) == ['vit_nano_digits', 'pvt_nano_digits']


def test_gpu_days_follow_from_the_papers_inference_times():
    r50, narrow, small = table_rows('cost')
    for row, ms in ((r50, 55.9), (small, 76.9), (narrow, 76.9 * 157.2 / 285.8)):
        assert gpu_days(row) == pytest.approx(12 * 117266 * 3 * ms / 1000 / 86400, rel=0.01)


RECORD = dict(
    metrics={'AP': 36.5, 'AP50': 55.0},
    training_seconds=9000,
    hardware='8 x H',
    accumulated_steps=2,
    seed=0,
    commit='abc',
    options=[],
    rows_at_a_time=1,
)


def test_tables_set_the_papers_figures_beside_the_measured_ones():
    rows = select(table_rows('table2'), ['r50_1x', 'pvt_small_1x'])
    table = results_table(rows, {'retinanet/r50_1x': RECORD}, '../').splitlines()
    assert table[0].startswith('| row | AP (paper / measured) | AP50 (paper / measured) |')
    assert table[2].startswith(
        '| ResNet50 [retinanet/r50_1x](../configs/retinanet/r50_1x.py) | 36.3 / 36.5 (+0.2) | '
        '55.3 / 55 (-0.3) | 38.6 / |'
    )
    assert table[2].endswith('| 2.5 h | 8 x H, 2 steps accumulated, seed 0, abc |')
    assert '| 40.4 / |' in table[3] and table[3].endswith('|  | unfinished |')


def test_a_score_below_the_bar_of_a_pvt_is_named():
    rows = [row for row in table_rows('learn') if row.system == 'detr']

    def below(score: float) -> list[str]:
        return below_bar(rows, {row.key: dict(metrics={'box AP': score}) for row in rows})

    assert below(79.9) == ['detr/pvt_nano_digits: box AP 79.9 is below 80']
    assert not below(80.0) and not below_bar(rows, {})


def test_metrics_come_in_percent():
    assert percent('coco/bbox_mAP', 0.364) == 36.4 and percent('coco/bbox_mAP_s', -1.0) == -1.0
    assert percent('mIoU', 41.87) == 41.87 and percent('mIoU', 0.8) == 0.8


def test_training_time_counts_every_part_of_a_resumed_run(tmp_path):
    for i, entries in enumerate([[(50, 2.0), (100, 1.0)], [(150, 1.0), (200, 1.0)]]):
        folder = tmp_path / str(i) / 'vis_data'
        folder.mkdir(parents=True)
        lines = [dict(loss=1.0, step=step, time=seconds) for step, seconds in entries] + [
            {'coco/bbox_mAP': 0.1, 'step': 1}
        ]
        (folder / 'scalars.json').write_text('\n'.join(map(json.dumps, lines)))
    assert training_seconds(tmp_path) == 50 * (2 + 1 + 1 + 1)


def test_kept_records_are_read_by_system_and_row(tmp_path):
    (tmp_path / 'detr').mkdir()
    (tmp_path / 'detr' / 'r50_50e.json').write_text('{"seed": 3}')
    assert read_records(tmp_path) == {'detr/r50_50e': {'seed': 3}}


SHORT = (
    'train_cfg.max_epochs=1',
    'train_cfg.val_interval=1',
    'default_hooks.logger.interval=1',
    'model.test_cfg.score_thr=0.0',
)


@pytest.mark.slow
def test_rows_run_are_kept_and_not_run_again(tool, digits, tmp_path):
    """Two at a time. A row that fails does not stop the other. Run again, the one is skipped and the other is run."""
    place = (
        '--scale',
        'digits',
        '--out',
        tmp_path / 'results',
        '--work-dirs',
        tmp_path / 'work',
        '--seed',
        3,
        '--jobs',
        2,
    )
    command = (
        'paper.reproduce',
        'table2',
        '--rows',
        'pvt_small',
        'r50',
        *place,
        '--data-root',
        digits / 'coco',
        '--cfg-options',
        *SHORT,
    )
    broken = tmp_path / 'work' / 'retinanet' / 'r18_nano_digits'
    broken.mkdir(parents=True)
    (broken / 'last_checkpoint').write_text(str(broken / 'epoch_1.pth'))  # what train.py leaves
    first = tool(*command, check=False)
    assert first.returncode == 1
    assert first.stderr.splitlines()[-1] == (
        f'reproduce.py: 1 of 2 rows failed: configs/retinanet/r18_nano_digits.py ({broken} holds a run that reproduce '
        'did not start: move it, or name another --work-dirs)'
    )
    record = json.loads((tmp_path / 'results' / 'retinanet' / 'pvt_nano_digits.json').read_text())
    assert record['seed'] == 3 and record['versions']['torch'] == torch.__version__ and record['training_seconds'] >= 0
    assert set(record['metrics']) == {'box AP'} and record['commit'] != 'unknown' and record['rows_at_a_time'] == 2
    assert (
        'Epoch(train)' in (broken.parent / 'pvt_nano_digits' / 'output.txt').read_text()
        and 'Epoch(train)' not in first.stdout
    )
    table = (tmp_path / 'results' / 'table2_digits.md').read_text()
    assert (
        table.startswith('# Table 2 (arXiv 3): RetinaNet on COCO val2017, on the embedded digits')
        and 'unfinished' in table
    )
    (broken / 'last_checkpoint').unlink()
    second = tool(*command, check=False)
    assert (
        'pvt_nano_digits.py is done; to test it again remove' in second.stdout
        and '== ' + sys.executable in second.stdout
    )
    assert second.stdout.count('tools/train.py configs/retinanet/') == 1
    assert 'unfinished' not in (tmp_path / 'results' / 'table2_digits.md').read_text()


@pytest.mark.slow
def test_an_interrupted_row_is_resumed_with_the_settings_it_started_with(tool, digits, tmp_path):
    work_dir = tmp_path / 'work' / 'retinanet' / 'r18_nano_digits'
    command = (
        'paper.reproduce',
        'table2',
        '--rows',
        'r50',
        '--scale',
        'digits',
        '--out',
        tmp_path / 'results',
        '--work-dirs',
        tmp_path / 'work',
        '--data-root',
        digits / 'coco',
    )
    options = ('--cfg-options', *SHORT[1:], 'train_cfg.max_epochs=2')
    tool(*command, *options)
    # as if it had been stopped in the second epoch
    (work_dir / 'result.json').unlink()
    (work_dir / 'epoch_2.pth').unlink()
    (work_dir / 'last_checkpoint').write_text(str(work_dir / 'epoch_1.pth'))
    other = tool(*command, '--seed', 5, *options, check=False)
    assert other.returncode == 1 and 'holds a run with other settings (seed was 0, is 5)' in other.stderr
    done = tool(*command, *options)
    assert 'resumed epoch: 1' in done.stdout and 'Epoch(train) [1]' not in done.stdout
    assert 'Epoch(train) [2]' in done.stdout and (work_dir / 'result.json').is_file()


@pytest.mark.slow
def test_a_run_that_detects_nothing_is_named(tool, digits, tmp_path):
    done = tool(
        'paper.reproduce',
        'table2',
        '--rows',
        'r50',
        '--scale',
        'digits',
        '--out',
        tmp_path / 'results',
        '--work-dirs',
        tmp_path / 'work',
        '--data-root',
        digits / 'coco',
        '--cfg-options',
        *SHORT,
        'model.test_cfg.score_thr=1.0',
        check=False,
    )
    assert done.returncode == 1 and 'testing gave no coco/bbox_mAP: nothing was detected' in done.stderr


@pytest.fixture
def dry_run(monkeypatch, capsys, tmp_path):
    """Runs ``reproduce ARGS --dry-run``, checks that it ran and wrote nothing, and returns the lines that it prints."""

    def run(*args: str) -> list[str]:
        out = tmp_path / 'results'
        flags = ['--dry-run', '--work-dirs', str(tmp_path / 'runs'), '--out', str(out)]
        monkeypatch.setattr(sys, 'argv', ['reproduce.py', *args, *flags])
        page = PAGE.read_text()
        for place in ('reproduce.run_row', 'reproduce.write_digits', 'cost.measure'):
            monkeypatch.setattr(f'paper.{place}', lambda *args, **kwargs: pytest.fail('a dry run ran something'))
        reproduce.main()
        assert list(tmp_path.iterdir()) == [] and PAGE.read_text() == page
        return capsys.readouterr().out.replace(str(out), 'OUT').replace(str(PAGE), 'PAGE').splitlines()

    return run


def test_a_dry_run_of_a_table_prints_the_plan(dry_run):
    assert dry_run('table4', '--rows', 'pvt_large_320k', '--gpus', '2') == [
        'configs/semantic_fpn/pvt_large_320k.py: 2 x 4 images, gradients accumulated over 2 steps; to be run; '
        '3.8 GPU-days',
        "3.8 GPU-days in all, 1.9 days on 2 x V100: an estimate from the paper's inference times, at three forward "
        'passes per training image',
        'would write OUT/table4.md',
    ]


def test_a_dry_run_names_the_row_that_is_left_out(dry_run):
    first, *plan, last = dry_run('table6', '--gpus', '8')
    assert first == 'configs/retinanet/vit_small_p4_1x.py is left out: it runs only when named, --rows vit_small_p4_1x'
    assert not any('vit_small_p4' in line for line in plan) and last == 'would write OUT/table6.md'


@pytest.mark.parametrize(
    'args, printed',
    [
        (['cost', '--gpus', '8'], 'would time RetinaNet on this machine and write OUT/cost_time.json and cost_time.md'),
        (['fig5'], 'would time the backbones on this machine and write OUT/fig5.json and fig5.png'),
        (['speed'], 'would time the backbones on this machine and write OUT/speed.json and speed.png'),
        (['docs'], 'would fill the tables of PAGE with the scores in OUT'),
        (['learn'], 'would write the embedded digits to data/digits'),
    ],
)
def test_a_dry_run_of_anything_else_says_what_it_would_do(dry_run, args, printed):
    said = [line for line in dry_run(*args) if 'is left out: needs mmpretrain' not in line]
    assert said[0] == printed


def test_the_pages_tables_are_those_of_the_kept_scores():
    page = PAGE.read_text()
    assert fill_page(page, read_records(ROOT / 'results')) == page
    for config in (ROOT / 'configs').glob('[!_]*/*.py'):
        if 'digits' not in config.stem and config.parent.name != 'custom':
            assert f'(../{config.relative_to(ROOT)})' in page
    filled = fill_page(page, {'retinanet/r50_1x': RECORD})
    assert '| ResNet50 | [r50_1x](../configs/retinanet/r50_1x.py) | 37.7 | 36.3 | 36.5 |' in filled


def test_a_page_without_a_section_is_named():
    with pytest.raises(SettingError, match='the page has no line <!-- reproduce docs: tables -->'):
        fill_page('# No tables', {})


def test_tables_are_known_by_either_versions_numbers(monkeypatch):
    for name, table in {'arxiv3': 'table2', 'arxiv11': 'cost', 'table3': 'table3'}.items():
        monkeypatch.setattr(sys, 'argv', ['reproduce', name])
        assert reproduce.parse_args().table == table
