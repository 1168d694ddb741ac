"""``bad_data='skip'``: training without what is faulty, and its count again and again."""

import json
import shutil

import pytest
from mmengine.config import Config

from pvt_mm.data.agreement import check_agreement
from pvt_mm.engine import BadDataHook, Runner
from pvt_mm.errors import DataError, SettingError
from tests.common import ALONE, ROOT


@pytest.fixture
def faulty(digits, tmp_path):
    """Scenes of digits, of which one image has no height and one other object has a negative width."""
    root = tmp_path / 'digits'
    shutil.copytree(digits / 'coco', root)
    path = root / 'annotations/instances_train2017.json'
    data = json.loads(path.read_text())
    del data['images'][0]['height']
    data['annotations'][-1]['bbox'][2] *= -1
    path.write_text(json.dumps(data))
    return root


def config(root, work_dir, **options) -> Config:
    cfg = Config.fromfile(ROOT / 'configs/retinanet/pvt_nano_digits.py')
    cfg.merge_from_dict({option.partition('=')[0]: eval(option.partition('=')[2]) for option in ALONE})
    for part in (cfg.train_dataloader.dataset, cfg.val_dataloader.dataset, cfg.test_dataloader.dataset):
        part.data_root = f'{root}/'
    cfg.val_evaluator.ann_file = f'{root}/annotations/instances_val2017.json'
    cfg.test_evaluator.ann_file = cfg.val_evaluator.ann_file
    cfg.merge_from_dict(dict(work_dir=str(work_dir), **options))
    return cfg


def test_a_run_ends_with_a_line_for_each_kind_and_the_way_out(faulty, tmp_path):
    with pytest.raises(DataError) as error:
        check_agreement(config(faulty, tmp_path / 'run'), 'train_dataloader')
    image, box = str(error.value).splitlines()
    assert '1 times image without a usable id, file_name, height or width (instances_train2017.json: image 1' in image
    assert '1 times box of negative width or height' in box and 'In training: mmdet drops the object.' in box
    for line in (image, box):
        assert line.startswith('train_dataloader: ')
        assert line.endswith('mend the file, or leave them out with --cfg-options bad_data=skip')


def test_another_policy_is_one_line(faulty, tmp_path):
    with pytest.raises(SettingError, match=r"^bad_data='drop' is unknown: set 'stop' or 'skip'$"):
        check_agreement(config(faulty, tmp_path, bad_data='drop'), 'train_dataloader')


def test_training_reads_a_copy_without_the_faulty_and_says_so_at_each_epochs_end(faulty, tmp_path):
    cfg = config(faulty, tmp_path / 'run', bad_data='skip')
    cfg.train_cfg.update(max_epochs=2, val_interval=2)
    lines = []
    check_agreement(cfg, 'train_dataloader', 'val_dataloader', log=lines.append)
    before = json.loads((faulty / 'annotations/instances_train2017.json').read_text())
    on_first = [entry for entry in before['annotations'] if entry['image_id'] == 1]
    what = f'{len(on_first) + 1} objects and 1 images of {faulty}/annotations/instances_train2017.json'
    assert any(f"bad_data='skip' leaves out {what}; it trains on {tmp_path}/run/cleaned/" in line for line in lines)

    runner = Runner.from_cfg(cfg)
    data = runner.train_dataloader.dataset
    assert {data.get_data_info(i)['img_id'] for i in range(len(data))} == set(range(2, 17))
    runner.train()
    log = '\n'.join(path.read_text() for path in (tmp_path / 'run').glob('*/*.log'))
    assert log.count(f"bad_data='skip' left out: {what}\n") == 2

    runner.message_hub.update_info('skipped_images', 3)
    next(hook for hook in runner.hooks if isinstance(hook, BadDataHook)).after_train_epoch(runner)
    log = '\n'.join(path.read_text() for path in (tmp_path / 'run').glob('*/*.log'))
    assert log.count(f"bad_data='skip' left out: {what}; 3 unreadable samples\n") == 1


@pytest.mark.parametrize('rank', ['0', '1'])
def test_every_process_trains_on_the_same_copy_and_only_the_first_speaks(faulty, tmp_path, monkeypatch, rank):
    check_agreement(first := config(faulty, tmp_path, bad_data='skip'), 'train_dataloader', log=lambda line: None)
    monkeypatch.setenv('LOCAL_RANK', rank)
    lines = []
    check_agreement(cfg := config(faulty, tmp_path, bad_data='skip'), 'train_dataloader', log=lines.append)
    assert cfg.train_dataloader.dataset.ann_file == first.train_dataloader.dataset.ann_file
    assert bool(lines) == (rank == '0')
    assert [path.suffix for path in (tmp_path / 'cleaned').iterdir()] == ['.json']


def test_what_skipping_cannot_mend_ends_the_run(faulty, tmp_path):
    path = faulty / 'annotations/instances_train2017.json'
    data = json.loads(path.read_text())
    data['images'][0]['height'] = 96
    for entry in data['annotations']:
        x, y, w, h = (abs(value) for value in entry['bbox'])
        entry['bbox'] = [x, y, x + w, y + h]
    path.write_text(json.dumps(data))
    with pytest.raises(DataError, match='box that is x1, y1, x2, y2') as error:
        check_agreement(config(faulty, tmp_path, bad_data='skip'), 'train_dataloader', log=lambda line: None)
    assert 'bad_data=skip' not in str(error.value)


def test_a_sound_dataset_is_read_as_it_is(digits, tmp_path):
    cfg = config(digits / 'coco', tmp_path, bad_data='skip')
    check_agreement(cfg, 'train_dataloader', log=lambda line: None)
    assert cfg.train_dataloader.dataset.ann_file == 'annotations/instances_train2017.json'
    assert not (tmp_path / 'cleaned').exists()


def test_runs_of_iterations_say_it_before_each_validation(faulty, tmp_path):
    cfg = config(faulty, tmp_path / 'run', bad_data='skip')
    cfg.train_cfg = dict(type='IterBasedTrainLoop', max_iters=4, val_interval=2)
    check_agreement(cfg, 'train_dataloader', log=lambda line: None)
    runner = Runner.from_cfg(cfg)
    assert runner.train_loop.max_iters == 4  # it is built as it is asked for
    runner.call_hook('before_val_epoch')
    log = '\n'.join(path.read_text() for path in (tmp_path / 'run').glob('*/*.log'))
    assert log.count("bad_data='skip' left out: ") == 1
