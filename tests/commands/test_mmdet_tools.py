"""mmdet's and mmseg's own tools, which ``mim`` installs with them, on a config and a run of ours."""

import json
import re
import runpy
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import cv2
import pytest
import torch
from mmengine.config import Config

from pvt_mm.commands import test, train
from pvt_mm.commands.get_flops import build_model, count_parameters
from tests.common import ALONE, ROOT

DETECTOR, SEGMENTER = (ROOT / f'configs/{system}/pvt_nano_digits.py' for system in ('retinanet', 'semantic_fpn'))
FEW = (
    'train_dataloader.dataset.indices=8',
    'val_dataloader.dataset.indices=4',
    'test_dataloader.dataset.indices=4',
    'model.test_cfg.score_thr=0.0',  # so little trained, nothing is sure
)


@pytest.fixture
def tool_of(monkeypatch, capfd):
    """Runs a tool of a library's in this process and returns what it printed."""

    def run(library: str, name: str, *args) -> str:
        path = Path(find_spec(library).origin).with_name('.mim') / f'tools/{name}.py'
        monkeypatch.setattr(sys, 'argv', [str(path), *map(str, args)])
        capfd.readouterr()
        runpy.run_path(str(path), run_name='__main__')
        printed = capfd.readouterr()
        return printed.out + printed.err

    return run


def data_options(root: Path) -> list[str]:
    """The ``--cfg-options`` of a tool that knows no ``--data-root``."""
    options = [f'{part}_dataloader.dataset.data_root={root}' for part in ('train', 'val', 'test')]
    return ['--cfg-options', *options, *ALONE, *FEW]


@pytest.fixture(scope='module')
def trained(digits, tmp_path_factory):
    """The work dir of a detector trained for two epochs of four steps, and its predictions, ``results.pkl``."""
    work_dir = tmp_path_factory.mktemp('work')
    flags = ('--data-root', digits / 'coco', '--work-dir', work_dir, '--cfg-options', *ALONE, *FEW)
    run = (
        (train, DETECTOR, *flags, 'train_cfg.max_epochs=2', 'train_dataloader.batch_size=2'),
        (test, DETECTOR, work_dir / 'epoch_2.pth', '--out', work_dir / 'results.pkl', *flags),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '1')
        for module, *args in run:
            patch.setattr(sys, 'argv', [module.__name__, *map(str, args)])
            module.main()
    return work_dir


@pytest.mark.parametrize('task', ['cal_train_time', 'plot_curve'])
def test_mmdets_analyze_logs_reads_our_log(tool_of, trained, tmp_path, monkeypatch, task):
    # the tool takes from seaborn, on which nothing here depends, the style of its lines
    monkeypatch.setitem(sys.modules, 'seaborn', SimpleNamespace(set_style=lambda style: None))
    (log,) = trained.glob('*/vis_data/scalars.json')
    flags = dict(cal_train_time=(), plot_curve=('--keys', 'loss_cls', 'bbox_mAP', '--out', tmp_path / 'a.png'))
    printed = tool_of('mmdet', 'analysis_tools/analyze_logs', task, log, *flags[task])
    if task == 'cal_train_time':
        assert float(re.search(r'average iter time: (\S+) s/iter', printed)[1]) > 0
    else:
        assert cv2.imread(str(tmp_path / 'a.png')).std() > 1


def test_mmdets_browse_dataset_draws_our_training_images(tool_of, digits, tmp_path):
    flags = ('--not-show', '--output-dir', tmp_path, *data_options(digits / 'coco'))
    tool_of('mmdet', 'analysis_tools/browse_dataset', DETECTOR, *flags)
    assert len(list(tmp_path.glob('*.jpg'))) == 8


def test_mmdets_confusion_matrix_counts_our_predictions(tool_of, digits, trained, tmp_path):
    flags = ('--score-thr', 0.0, *data_options(digits / 'coco'))
    tool_of('mmdet', 'analysis_tools/confusion_matrix', DETECTOR, trained / 'results.pkl', tmp_path, *flags)
    assert cv2.imread(str(tmp_path / 'confusion_matrix.png')).std() > 1


def test_mmdets_analyze_results_draws_our_best_and_worst(tool_of, digits, trained, tmp_path):
    truth = digits / 'coco/annotations/instances_val2017.json'
    flags = ('--topk', 1, *data_options(digits / 'coco'), f'test_evaluator.ann_file={truth}')
    tool_of('mmdet', 'analysis_tools/analyze_results', DETECTOR, trained / 'results.pkl', tmp_path, *flags)
    assert [len(list((tmp_path / name).glob('*.jpg'))) for name in ('good', 'bad')] == [1, 1]


def test_mmdets_get_flops_counts_our_model(tool_of, digits):
    flags = ('--num-images', 1, *data_options(digits / 'coco'))
    printed = tool_of('mmdet', 'analysis_tools/get_flops', DETECTOR, *flags)
    parameters = sum(trained for _, trained in count_parameters(build_model(Config.fromfile(DETECTOR))).values())
    assert float(re.search(r'Params: (\S+)M', printed)[1]) == pytest.approx(parameters / 1e6, abs=1e-3)
    assert float(re.search(r'Flops: (\S+)G', printed)[1]) > 0


def test_mmdets_benchmark_times_our_data(tool_of, digits):
    flags = ('--dataset-type', 'train', '--max-iter', 6, '--num-warmup', 1, '--log-interval', 2)
    options = (*data_options(digits / 'coco'), 'train_dataloader.batch_size=1')
    printed = tool_of('mmdet', 'analysis_tools/benchmark', DETECTOR, '--task', 'dataloader', *flags, *options)
    assert float(re.search(r'Overall fps: (\S+) batch/s', printed)[1]) > 0


def test_mmdets_publish_model_leaves_our_weights_alone(tool_of, trained, tmp_path):
    tool_of('mmdet', 'model_converters/publish_model', trained / 'epoch_2.pth', tmp_path / 'a.pth')
    while (tmp_path / 'a.pth').exists():  # it is still being renamed
        time.sleep(0.01)
    (path,) = tmp_path.glob('a-*.pth')
    ours, theirs = (torch.load(name, weights_only=True) for name in (trained / 'epoch_2.pth', path))
    assert 'optimizer' in ours and 'optimizer' not in theirs
    assert all(torch.equal(value, theirs['state_dict'][key]) for key, value in ours['state_dict'].items())


def test_mmsegs_benchmark_times_our_segmenter(tool_of, digits, tmp_path):
    """It wants 200 images, and takes no ``--cfg-options``."""
    (tmp_path / 'config.py').write_text(f"""
_base_ = {str(SEGMENTER)!r}
dataset = dict(_base_.test_dataloader.dataset, data_root={str(digits / 'ADEChallengeData2016')!r})
test_dataloader = dict(dataset=dict(_delete_=True, type='RepeatDataset', times=25, dataset=dataset))
""")
    tool_of('mmseg', 'analysis_tools/benchmark', tmp_path / 'config.py', 'none.pth', '--work-dir', tmp_path / 'times')
    (times,) = (tmp_path / 'times').glob('*.json')
    assert json.loads(times.read_text())['average_fps'] > 0
