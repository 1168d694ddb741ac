"""Running and setting out the rows of the tables."""

import json
import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS, init_default_scope
from torch import nn

from paper.rows import Row, find_rows
from paper.run import batch_options, below_bar, gpu_days, percent, read_records, share_batch, training_seconds
from paper.tables import fill_readme, table_of
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
    with pytest.raises(SettingError, match='batch of 16 images cannot be shared by 3 GPUs: take 1, 2, 4, 8, 16'):
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


def test_rows_are_found_by_config_and_by_backbone():
    assert [row.name for row in find_rows('table2', ['pvt_small', 'r50_3x'])] == [
        'pvt_small_1x',
        'r50_3x',
        'pvt_small_3x',
    ]
    assert len(find_rows('table3')) == 18 and len(find_rows('learn')) == 8
    with pytest.raises(SettingError, match="table5 has no row 'r18'; it has r50_50e, pvt_small_50e"):
        find_rows('table5', ['r18'])


def test_every_row_has_a_counterpart_on_the_digits():
    for table in ('table2', 'table3', 'table4', 'table4_code', 'table5', 'table6', 'wider', 'cost'):
        for row in find_rows(table, scale='digits'):
            assert (ROOT / row.config).is_file()
    assert [row.name for row in find_rows('table2', ['pvt_small', 'r50'], 'digits')] == [
        'r18_nano_digits',
        'pvt_nano_digits',
    ]
    assert 'vit_nano_digits' in [row.name for row in find_rows('table6', scale='digits')]


def test_gpu_days_follow_from_the_papers_inference_times():
    (small,) = find_rows('table2', ['pvt_small_1x'])
    assert gpu_days(small) == pytest.approx(12 * 117266 * 3 * 0.0769 / 86400, rel=0.01)
    (r50,) = find_rows('table2', ['r50_3x'])
    assert gpu_days(r50) == pytest.approx(36 * 117266 * 3 * 0.0559 / 86400, rel=0.01)


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
    rows = find_rows('table2', ['r50_1x', 'pvt_small_1x'])
    table = table_of(rows, {'retinanet/r50_1x': RECORD}, '../').splitlines()
    assert table[0].startswith('| row | AP (paper / measured) | AP50 (paper / measured) |')
    assert table[2].startswith(
        '| ResNet50 [retinanet/r50_1x](../configs/retinanet/r50_1x.py) | 36.3 / 36.5 (+0.2) | '
        '55.3 / 55 (-0.3) | 38.6 / |'
    )
    assert table[2].endswith('| 2.5 h | 8 x H, 2 steps accumulated, seed 0, abc |')
    assert '| 40.4 / |' in table[3] and table[3].endswith('|  | unfinished |')


def test_what_falls_short_is_named():
    row = Row('detr', 'pvt_nano_digits', {'box AP': 'coco/bbox_mAP'}, bar={'box AP': 80.0})
    assert below_bar([row], {'detr/pvt_nano_digits': dict(metrics={'box AP': 79.9})}) == [
        'detr/pvt_nano_digits: box AP 79.9, not 80'
    ]
    assert not below_bar([row], {'detr/pvt_nano_digits': dict(metrics={'box AP': 80.0})}) and not below_bar([row], {})


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


def test_rows_run_are_kept_and_not_run_again(tool, digits, tmp_path):
    """Two at a time. A row that fails does not stop the other; what is done is skipped, and what failed is run again."""
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
        f'reproduce.py: 1 of 2 rows failed: configs/retinanet/r18_nano_digits.py ({broken} holds a run that this tool did '
        'not begin: move it, or name another --work-dirs)'
    )
    record = json.loads((tmp_path / 'results' / 'retinanet' / 'pvt_nano_digits.json').read_text())
    assert record['seed'] == 3 and record['versions']['torch'] == torch.__version__ and record['training_seconds'] >= 0
    assert set(record['metrics']) == {'box AP'} and record['commit'] != 'unknown' and record['rows_at_a_time'] == 2
    assert (
        'Epoch(train)' in (broken.parent / 'pvt_nano_digits' / 'output.txt').read_text()
        and 'Epoch(train)' not in first.stdout
    )
    table = (tmp_path / 'results' / 'table2_digits.md').read_text()
    assert table.startswith('# Table 2: RetinaNet on COCO val2017, on the embedded digits') and 'unfinished' in table
    (broken / 'last_checkpoint').unlink()
    second = tool(*command, check=False)
    assert 'pvt_nano_digits.py is done; remove' in second.stdout and '== ' + sys.executable in second.stdout
    assert second.stdout.count('tools/train.py configs/retinanet/') == 1
    assert 'unfinished' not in (tmp_path / 'results' / 'table2_digits.md').read_text()


def test_an_interrupted_row_goes_on_as_it_was_begun(tool, digits, tmp_path):
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
    assert other.returncode == 1 and 'holds a run begun otherwise (seed was 0, is 5)' in other.stderr
    done = tool(*command, *options)
    assert 'resumed epoch: 1' in done.stdout and 'Epoch(train) [1]' not in done.stdout
    assert 'Epoch(train) [2]' in done.stdout and (work_dir / 'result.json').is_file()


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


def test_the_plan_is_printed_and_nothing_run(tool, tmp_path):
    done = tool(
        'paper.reproduce',
        'table4',
        '--rows',
        'pvt_large_320k',
        '--gpus',
        2,
        '--dry-run',
        '--work-dirs',
        tmp_path / 'w',
        '--out',
        tmp_path / 'results',
    )
    assert done.stdout.startswith(
        'configs/semantic_fpn/pvt_large_320k.py: 2 x 4 images, 2 steps accumulated; to be run; 3.8 GPU-days\n'
    )
    assert list(tmp_path.iterdir()) == []


def test_the_readmes_tables_are_those_of_the_kept_figures():
    readme = (ROOT / 'README.md').read_text()
    assert fill_readme(readme, read_records(ROOT / 'results')) == readme
    for config in (ROOT / 'configs').glob('[!_]*/*.py'):
        if 'digits' not in config.stem:
            assert f'({config.relative_to(ROOT)})' in readme
    filled = fill_readme(readme, {'retinanet/r50_1x': RECORD})
    assert '| ResNet50 | [r50_1x](configs/retinanet/r50_1x.py) | 37.7 | 36.3 | 36.5 |' in filled
