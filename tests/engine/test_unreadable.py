"""Images and label maps that cannot be read, in training and in testing."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.model import BaseModel
from mmengine.registry import METRICS, MODELS, TRANSFORMS

from pvt_mm import Runner
from pvt_mm.engine.unreadable import UnreadableError

SEEN = []


@MODELS.register_module()
class OneWeight(BaseModel):
    """Learns nothing, and keeps the paths of the images that it is trained on."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        SEEN.extend(sample.img_path for sample in data_samples)
        return dict(loss=self.weight.sum()) if mode == 'loss' else data_samples


@METRICS.register_module()
class NoMetric(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results += data_samples

    def compute_metrics(self, results):
        return dict(number=len(results))


@TRANSFORMS.register_module()
class FaultyTransform:
    def __call__(self, results):
        raise OSError('a fault of its own')


def write(root, number=6):
    """A dataset in COCO's form and in mmseg's."""
    for name in ('images', 'maps'):
        (root / name).mkdir(parents=True)
    for i in range(number):
        cv2.imwrite(str(root / 'images' / f'{i}.jpg'), np.full((8, 8, 3), i, np.uint8))
        cv2.imwrite(str(root / 'maps' / f'{i}.png'), np.full((8, 8), i % 2, np.uint8))
    images = [dict(id=i, file_name=f'{i}.jpg', height=8, width=8) for i in range(number)]
    boxes = [dict(id=i, image_id=i, category_id=1, bbox=[1, 1, 4, 4], area=16, iscrowd=0) for i in range(number)]
    data = dict(images=images, annotations=boxes, categories=[dict(id=1, name='thing')])
    (root / 'a.json').write_text(json.dumps(data))
    return root


def detection(root, *extra) -> dict:
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True), *extra]
    return dict(
        type='CocoDataset',
        data_root=str(root),
        ann_file='a.json',
        data_prefix=dict(img='images/'),
        metainfo=dict(classes=('thing',)),
        pipeline=[*pipeline, dict(type='PackDetInputs', meta_keys=('img_path',))],
    )


def segmentation(root, *extra) -> dict:
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), *extra]
    return dict(
        type='BaseSegDataset',
        data_root=str(root),
        data_prefix=dict(img_path='images', seg_map_path='maps'),
        metainfo=dict(classes=('a', 'b')),
        pipeline=[*pipeline, dict(type='PackSegInputs', meta_keys=('img_path',))],
    )


def make_runner(tmp_path, dataset, scope, workers=0, train_cfg=None, val=None, **settings) -> Runner:
    SEEN.clear()
    loader = dict(batch_size=2, num_workers=workers, persistent_workers=workers > 0)
    loader['sampler'] = dict(type='DefaultSampler', shuffle=False)
    if train_cfg:
        settings.update(
            train_dataloader=dict(loader, dataset=dataset),
            train_cfg=train_cfg,
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        )
    if val:
        evaluation = dict(loader, dataset=val)
        settings.update(val_dataloader=evaluation, val_cfg={}, val_evaluator=dict(type='NoMetric'))
        settings.update(test_dataloader=evaluation, test_cfg={}, test_evaluator=dict(type='NoMetric'))
    cfg = dict(
        model=dict(type='OneWeight'),
        work_dir=str(tmp_path / 'work'),
        default_scope=scope,
        experiment_name=f'{tmp_path.name}_{workers}',
        **settings,
    )
    return Runner.from_cfg(Config(cfg))


TWO_EPOCHS = dict(by_epoch=True, max_epochs=2)


def log_of(runner) -> str:
    return (Path(runner.log_dir) / f'{runner.timestamp}.log').read_text()


WRAPPERS = {
    'CocoDataset': lambda root: detection(root),
    'RepeatDataset': lambda root: dict(type='RepeatDataset', times=1, dataset=detection(root)),
    'ConcatDataset': lambda root: dict(type='ConcatDataset', datasets=[detection(root)]),
    'MultiImageMixDataset': lambda root: dict(
        type='MultiImageMixDataset',
        dataset=detection(root) | dict(pipeline=detection(root)['pipeline'][:2]),
        pipeline=detection(root)['pipeline'][2:],
    ),
}


@pytest.mark.parametrize(
    'wrapper, workers',
    [
        ('CocoDataset', 0),
        ('CocoDataset', 2),
        ('RepeatDataset', 2),
        ('ConcatDataset', 0),
        ('MultiImageMixDataset', 2),
    ],
)
def test_detectors_train_on_other_images_and_the_skipped_are_named_once_and_counted(tmp_path, wrapper, workers):
    root = write(tmp_path / 'data')
    (root / 'images' / '1.jpg').write_bytes((root / 'images' / '1.jpg').read_bytes()[:300])
    (root / 'images' / '4.jpg').write_bytes(b'')
    runner = make_runner(tmp_path, WRAPPERS[wrapper](root), 'mmdet', workers, TWO_EPOCHS, bad_data='skip')
    runner.train()
    assert len(SEEN) == 12 and not any(path.endswith(('1.jpg', '4.jpg')) for path in SEEN)
    total = runner.message_hub.get_info('skipped_images')
    log = log_of(runner)
    # what is taken in the place of an unreadable image may be unreadable itself
    assert total >= 4 and f'{total} unreadable samples so far' in log and log.count('samples so far') == 2
    assert log.count('1.jpg cannot be read (it does not decode): skipped') == 1
    assert log.count('4.jpg cannot be read (it does not decode): skipped') == 1


@pytest.mark.parametrize('workers', [0, 2])
def test_segmenters_trained_by_iterations_skip_images_and_maps(tmp_path, workers):
    root = write(tmp_path / 'data')
    (root / 'images' / '1.jpg').write_bytes(b'text')
    (root / 'maps' / '2.png').write_bytes((root / 'maps' / '2.png').read_bytes()[:50])
    dataset = dict(type='RepeatDataset', times=2, dataset=segmentation(root))
    good = segmentation(write(tmp_path / 'val'))
    by_iterations = dict(by_epoch=False, max_iters=6, val_interval=3)
    runner = make_runner(tmp_path, dataset, 'mmseg', workers, by_iterations, good, bad_data='skip')
    runner.train()
    trained = [path for path in SEEN if str(root) in path]
    assert len(trained) == 12 and not any(path.endswith(('1.jpg', '2.jpg')) for path in trained)
    log = log_of(runner)
    assert log.count('1.jpg cannot be read (it does not decode): skipped') == 1
    assert log.count('2.png cannot be read (') == 1 and 'samples so far' in log
    assert runner.message_hub.get_info('skipped_images') >= 4


def test_a_resumed_run_counts_on(tmp_path):
    root = write(tmp_path / 'data')
    (root / 'images' / '1.jpg').write_bytes(b'')
    totals = []
    for epochs in (1, 2):
        settings = dict(train_cfg=dict(by_epoch=True, max_epochs=epochs), bad_data='skip', resume=epochs > 1)
        runner = make_runner(tmp_path, detection(root), 'mmdet', 0, **settings)
        runner.train()
        totals.append(runner.message_hub.get_info('skipped_images'))
        assert f'{totals[-1]} unreadable samples so far' in log_of(runner)
    assert 0 < totals[0] < totals[1]


def test_faults_of_other_steps_end_the_run(tmp_path):
    dataset = detection(write(tmp_path / 'data'), dict(type='mmengine.FaultyTransform'))
    runner = make_runner(tmp_path, dataset, 'mmdet', 0, TWO_EPOCHS, bad_data='skip')
    with pytest.raises(OSError, match='a fault of its own'):
        runner.train()


def test_a_wrong_setting_of_loading_ends_the_run(tmp_path):
    dataset = detection(write(tmp_path / 'data'))
    dataset['pipeline'][0]['imdecode_backend'] = 'kraken'
    runner = make_runner(tmp_path, dataset, 'mmdet', 0, TWO_EPOCHS, bad_data='skip')
    with pytest.raises(ValueError, match='kraken is not supported'):
        runner.train()


@pytest.mark.parametrize('workers, bad_data', [(0, 'stop'), (2, None)])
def test_an_unreadable_image_ends_training_with_one_line_that_names_it(tmp_path, workers, bad_data):
    root = write(tmp_path / 'data')
    (root / 'images' / '1.jpg').write_bytes(b'text')
    runner = make_runner(tmp_path, detection(root), 'mmdet', workers, TWO_EPOCHS, bad_data=bad_data)
    with pytest.raises(UnreadableError) as error:
        runner.train()
    assert str(error.value) == (
        f'{root}/images/1.jpg cannot be read (it does not decode): pvt-mm check_data CONFIG --decode all names all '
        f"such files; bad_data='skip' trains without them"
    )


@pytest.mark.parametrize('workers, name', [(2, 'images/3.jpg'), (0, 'maps/3.png')])
def test_evaluation_never_skips(tmp_path, workers, name):
    """mmseg's test sets do not set test_mode, without which a dataset takes another sample."""
    root = write(tmp_path / 'data')
    (root / name).write_bytes(b'text')
    runner = make_runner(tmp_path, None, 'mmseg', workers, val=segmentation(root), bad_data='skip')
    runner._has_loaded = True
    for evaluate in (runner.test, runner.val):
        with pytest.raises(UnreadableError, match=f'^.*{name} cannot be read .*$') as error:
            evaluate()
        assert len(str(error.value).splitlines()) == 1


def test_without_a_readable_image_a_run_ends(tmp_path):
    root = write(tmp_path / 'data')
    for path in (root / 'images').iterdir():
        path.unlink()
    runner = make_runner(tmp_path, detection(root), 'mmdet', 0, TWO_EPOCHS, bad_data='skip')
    with pytest.raises(Exception, match='Cannot find valid image after 1000'):
        runner.train()
