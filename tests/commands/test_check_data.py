"""``check_data``: one table of what is wrong with all data of a config."""

import json

import cv2
import numpy as np
import pytest

from pvt_mm.commands import check_data
from pvt_mm.errors import SettingError
from tests.common import ROOT

CONFIG = """
default_scope = 'mmdet'
dataset = dict(
    type='CocoDataset',
    data_root={root!r},
    ann_file='a.json',
    data_prefix=dict(img='images/'),
    metainfo=dict(classes=('ship',)),
    pipeline=[dict(type='LoadAnnotations', with_bbox=True, with_mask={masks})],
)
train_dataloader = dict(dataset=dict(type='RepeatDataset', times=2, dataset=dataset))
val_dataloader = dict(dataset=dict(dataset, test_mode=True))
test_dataloader = val_dataloader
"""


def write(folder, masks=False, names=('ship',), **values) -> str:
    """A config, and an image with an object of ``values`` beside a good one."""
    (folder / 'images').mkdir()
    cv2.imwrite(str(folder / 'images/a.jpg'), np.zeros((40, 60, 3), np.uint8))
    good = dict(id=1, image_id=1, category_id=1, bbox=[1, 2, 10, 10], area=100, iscrowd=0)
    data = dict(
        images=[dict(id=1, file_name='a.jpg', height=40, width=60)],
        annotations=[good, dict(good, id=2) | values],
        categories=[dict(id=i, name=name) for i, name in enumerate(names, 1)],
    )
    (folder / 'a.json').write_text(json.dumps(data))
    (folder / 'config.py').write_text(CONFIG.format(root=str(folder), masks=masks))
    return str(folder / 'config.py')


@pytest.fixture
def run(monkeypatch, tmp_path, capsys):
    """Runs the command, and returns its exit code, what it prints and the kinds of its JSON by name."""

    def call(config, *flags):
        monkeypatch.setattr('sys.argv', ['check_data', config, '--json', str(tmp_path / 'out.json'), *flags])
        try:
            check_data.main.__wrapped__()  # the wrapper changes the environment of this process
            code = 0
        except SystemExit as end:
            code = end.code
        kinds = json.loads((tmp_path / 'out.json').read_text()) if (tmp_path / 'out.json').exists() else []
        return code, capsys.readouterr().out, {kind['name']: kind for kind in kinds}

    return call


def test_sound_data_is_nothing_to_worry_about(run, tmp_path):
    code, out, kinds = run(write(tmp_path))
    assert code == 0 and out.endswith('nothing would end a run\n')
    assert not any(kind['stops'] for kind in kinds.values())


def test_a_table_tells_what_how_many_examples_and_the_effect_and_a_file_is_read_once(run, tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(
        check_data,
        'check_annotations',
        lambda *args, inner=check_data.check_annotations: read.append(args) or inner(*args),
    )
    code, out, kinds = run(write(tmp_path, bbox=[11, 2, -9, 10]))
    assert code == 1 and out.endswith('1 kinds of faults would end a run\n')
    row = next(line for line in out.splitlines() if 'negative' in line)
    for text in (
        'ENDS A RUN: box of negative width or height',
        ' 2 ',
        'a.json: annotation 2',
        'mmdet drops the object',
    ):
        assert text in row
    assert kinds['box-negative']['number'] == 2  # of training, and of validation, which is tested as well
    assert len(read) == 2


def test_a_box_detector_needs_no_masks_and_an_instance_segmenter_hears_of_the_way_out(run, tmp_path):
    config = write(tmp_path, masks=True)
    code, out, kinds = run(config)
    assert code == 1 and 'pvt-mm init --task detection' in kinds['mask-missing']['effect']
    assert kinds['mask-missing']['number'] == 4
    (tmp_path / 'config.py').write_text(CONFIG.format(root=str(tmp_path), masks=False))
    assert run(config)[0] == 0


def test_images_are_compared_with_the_sizes_of_the_file(run, tmp_path):
    config = write(tmp_path)
    cv2.imwrite(str(tmp_path / 'images/a.jpg'), np.zeros((20, 60, 3), np.uint8))
    code, _, kinds = run(config)
    assert code == 1 and any('another size' in kind['what'] for kind in kinds.values())
    (tmp_path / 'images/a.jpg').unlink()
    code, _, kinds = run(config)
    assert code == 1 and any('does not exist' in kind['what'] for kind in kinds.values())


@pytest.mark.parametrize(
    'text',
    ['', '{', '[]', '{}', '[[[', '{"images": 3}', '{"images": [1], "annotations": [2], "categories": [3]}', None],
)
def test_a_file_in_another_form_is_a_finding(run, tmp_path, text):
    config = write(tmp_path)
    (tmp_path / 'a.json').unlink()
    if text is not None:
        (tmp_path / 'a.json').write_text(text)
    code, _, kinds = run(config)
    assert code == 1 and kinds['file-broken']['number'] == 2 and str(tmp_path) in kinds['file-broken']['examples'][0]


def test_classes_that_are_not_the_files_are_findings(run, tmp_path):
    code, _, kinds = run(write(tmp_path, names=('shop',)))
    assert code == 1 and "'ship' for 'shop'" in kinds['classes']['examples'][0]


def test_data_root_and_options_choose_the_data(run, tmp_path):
    config = write(tmp_path, bbox=[11, 2, -9, 10])
    (tmp_path / 'good').mkdir()
    write(tmp_path / 'good')
    assert run(config, '--data-root', str(tmp_path / 'good'))[0] == 0
    assert run(config, '--cfg-options', 'train_dataloader.dataset.dataset.ann_file=b.json')[2]['file-broken']


def test_a_config_without_data_to_check_is_one_line(tmp_path):
    (tmp_path / 'config.py').write_text('default_scope = "mmdet"')
    with pytest.raises(SettingError, match='nothing to check'):
        check_data.find_faults(check_data.Config.fromfile(tmp_path / 'config.py'), 'none')


def test_a_segmenters_images_and_maps_are_checked(run, digits, tmp_path):
    config = str(ROOT / 'configs/semantic_fpn/pvt_nano_digits.py')
    root = digits / 'ADEChallengeData2016'
    code, out, _ = run(config, '--data-root', str(root), '--decode', 'none')
    assert code == 0 and '24 images' in out
    code, _, kinds = run(config, '--data-root', str(tmp_path / 'nowhere'))
    assert code == 1 and kinds


def test_the_real_images_have_harmless_kinds_alone(run, real_coco):
    code, _, kinds = run(
        str(ROOT / 'configs/mask_rcnn/pvt_small_1x.py'), '--data-root', str(real_coco), '--decode', 'all'
    )
    assert code == 0 and kinds['crowd']['number'] == 17
