import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample

from pvt_mm.commands import replay, train
from pvt_mm.engine.step import pack, unpack
from pvt_mm.errors import CheckpointError
from tests.common import ALONE


@pytest.fixture(scope='module')
def step(digits, tmp_path_factory):
    """The file of a detector's step at a learning rate of 1e6."""
    from _pytest.monkeypatch import MonkeyPatch

    work = tmp_path_factory.mktemp('replay')
    options = [*ALONE, 'optim_wrapper.optimizer.lr=1e6', 'train_dataloader.batch_size=2', 'report=False']
    flags = ['--data-root', digits / 'coco', '--work-dir', work, '--cfg-options', *options]
    with MonkeyPatch.context() as patch:
        patch.setattr('sys.argv', ['train.py', 'configs/mask_rcnn/pvt_nano_digits.py', *map(str, flags)])
        patch.setenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '1')
        with pytest.raises(SystemExit, match='iteration 2 is not finite: loss nan'):
            train.main()
    assert [path.name for path in work.glob('*.pth')] == ['nonfinite_2.pth']
    return work / 'nonfinite_2.pth'


def test_a_step_comes_out_again_from_its_file_alone(step, command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command(replay, step) is None
    said = capsys.readouterr().out
    assert 'The step comes out as in the run.' in said and 'the first output that is not finite is of backbone.' in said
    assert said.count('000000') == 2  # images
    assert 'loss_mask                          nan           nan' in said and 'roi_head.mask_head' in said


def test_a_step_that_comes_out_otherwise_says_so(step, command, capsys, tmp_path):
    content = torch.load(step, weights_only=True)
    for value in content['state_dict'].values():
        if value.is_floating_point():
            value.clamp_(-0.1, 0.1)
    torch.save(content, tmp_path / 'other.pth')
    assert command(replay, tmp_path / 'other.pth') is None
    said = capsys.readouterr().out
    assert 'all of it is finite\nThe step comes out otherwise than in the run: the first output' in said


def test_anomaly_names_the_operation(step, command, capsys):
    assert command(replay, step, '--anomaly') is None
    assert 'RuntimeError: Function ' in capsys.readouterr().out


@pytest.mark.parametrize('name', ['os.system', 'subprocess.Popen', '__import__("os").system'])
def test_a_function_that_a_file_names_is_not_run(step, command, tmp_path, name):
    content = torch.load(step, weights_only=True)
    content['config']['model']['neck'] = dict(type=name, command=f'touch {tmp_path}/ran')
    torch.save(content, tmp_path / 'evil.pth')
    assert f'the model names {name!r}, which is no registered name' in command(replay, tmp_path / 'evil.pth')
    assert not (tmp_path / 'ran').exists()


def test_what_is_no_step_is_refused(command, tmp_path):
    torch.save(dict(state_dict={}, meta={}), tmp_path / 'epoch_1.pth')
    said = command(replay, tmp_path / 'epoch_1.pth')
    assert 'epoch_1.pth is no step of a training, it lacks config, args, ' in said


def test_a_model_that_no_config_built_is_said(step, command, tmp_path):
    content = torch.load(step, weights_only=True)
    del content['config']['model']
    torch.save(content, tmp_path / 'a.pth')
    assert 'holds no settings of the model' in command(replay, tmp_path / 'a.pth')


def test_samples_boxes_and_masks_survive_the_file(tmp_path):
    sample = DetDataSample(metainfo=dict(img_path='a.jpg', img_shape=(4, 4), scale_factor=np.array([1.0, 2.0])))
    sample.gt_instances = InstanceData(
        bboxes=HorizontalBoxes(torch.tensor([[0.0, 0, 2, 2]])),
        labels=torch.tensor([3]),
        masks=BitmapMasks(np.ones((1, 4, 4), np.uint8), 4, 4),
    )
    sample.ignored_instances = InstanceData(
        bboxes=torch.zeros(0, 4), masks=BitmapMasks(np.zeros((0, 4, 4), np.uint8), 4, 4)
    )
    polygons = PolygonMasks([[np.array([0.0, 0, 2, 0, 2, 2])]], 4, 4)
    segmented = SegDataSample(gt_sem_seg=PixelData(data=torch.ones(1, 4, 4)))
    torch.save(pack([sample, polygons, segmented]), tmp_path / 'a.pth')
    other, same, maps = unpack(torch.load(tmp_path / 'a.pth', weights_only=True), 'cpu')
    assert type(other) is DetDataSample and other.img_shape == (4, 4) and other.scale_factor.tolist() == [1, 2]
    assert isinstance(other.gt_instances.bboxes, HorizontalBoxes) and len(other.gt_instances) == 1
    assert other.gt_instances.masks.masks.sum() == 16 and len(other.ignored_instances.masks) == 0
    assert same.masks[0][0].tolist() == [0, 0, 2, 0, 2, 2]
    assert maps.gt_sem_seg.data.sum() == 16
    with pytest.raises(CheckpointError, match='holds a os.Popen, which is no known kind'):
        unpack({'__class__': 'os.Popen'}, 'cpu')
