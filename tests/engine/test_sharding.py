import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from pvt_mm.engine.sharding import check_shard
from pvt_mm.engine.step import Step, unpack
from pvt_mm.errors import SettingError
from pvt_mm.weights.reading import read_checkpoint
from tests.common import ALONE, ROOT
from tests.engine.sharded_runs import Regressor, run

WAYS = ('fsdp', 'zero')


@pytest.fixture(scope='module')
def runs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('runs')
    launch = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node=2']
    done = subprocess.run(
        [*launch, '-m', 'tests.engine.sharded_runs', folder], cwd=ROOT, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return folder


def load(folder: Path, epoch: int = 2) -> dict:
    return torch.load(folder / f'epoch_{epoch}.pth', weights_only=True)


def assert_same(ours: dict, theirs: dict, **tolerance: float) -> None:
    """Weights and the optimizer's states, the latter under the same numbers."""
    assert ours['state_dict'].keys() == theirs['state_dict'].keys()
    assert ours['optimizer']['state'].keys() == theirs['optimizer']['state'].keys()
    assert ours['optimizer']['param_groups'] == theirs['optimizer']['param_groups']
    tolerance = tolerance or dict(rtol=0, atol=0)
    torch.testing.assert_close(dict(ours['state_dict']), dict(theirs['state_dict']), **tolerance)
    torch.testing.assert_close(ours['optimizer']['state'], theirs['optimizer']['state'], **tolerance)


@pytest.mark.parametrize('way', WAYS)
def test_a_sharded_run_ends_as_a_run_of_whole_copies_does(runs, way):
    assert_same(load(runs / way), load(runs / 'ddp'), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('way', WAYS)
def test_a_sharded_run_that_was_resumed_is_bit_identical(runs, way):
    assert_same(load(runs / f'{way}_resumed'), load(runs / way))


def test_recomputed_layers_are_gathered_again(runs):
    assert_same(load(runs / 'fsdp_with_cp'), load(runs / 'fsdp'))


def test_gradients_accumulate_in_shares(runs):
    # after two updates: later ones magnify what rounding leaves
    ours, theirs = (load(runs / f'{way}_accumulated', 1)['state_dict'] for way in ('fsdp', 'ddp'))
    torch.testing.assert_close(dict(ours), dict(theirs), rtol=1e-5, atol=1e-5)


def test_gradients_that_wait_in_shares_are_in_the_checkpoint(runs):
    assert_same(load(runs / 'fsdp_gathers_resumed'), load(runs / 'fsdp_gathers'))


@pytest.mark.parametrize('way', WAYS)
def test_one_process_runs_a_step_again_that_was_not_finite_in_shares(runs, way):
    content = read_checkpoint(str(runs / f'{way}_nonfinite' / 'nonfinite_2.pth'))
    assert content['meta']['rank'] == 1 and 'backbone.patch_embed1.norm' in content['meta']['cause']
    model = Regressor()
    model.load_state_dict(content['state_dict'])
    assert (
        Step(content['args'], content['kwargs'], unpack(content['random'], 'cpu'), None).run(model).cause
        == content['meta']['cause']
    )
    assert not list((runs / f'{way}_nonfinite').glob('epoch_*'))


def test_each_of_two_processes_keeps_half(runs):
    ranks = [json.loads((runs / f'rank_{rank}.json').read_text()) for rank in (0, 1)]
    whole = ranks[0]['ddp']
    for rank in ranks:
        assert rank['ddp'] == whole
        assert rank['fsdp']['parameters'] < 0.55 * whole['parameters']
        assert rank['fsdp']['states'] < 0.55 * whole['states']
        assert rank['zero']['parameters'] == whole['parameters']
        assert rank['zero']['states'] < 0.55 * whole['states']


@pytest.mark.parametrize('way', WAYS)
def test_one_process_goes_on_from_a_sharded_run(runs, way, tmp_path):
    (tmp_path / 'last_checkpoint').write_text(str(runs / f'{way}_resumed' / 'epoch_1.pth'))
    runner = run(tmp_path, 2, resume=True, launcher='none')
    saved = load(tmp_path)
    assert runner.iter == 8
    # BN sees the whole batch here, and half of it in each of two processes
    assert saved['state_dict'].keys() == load(runs / way)['state_dict'].keys()
    assert saved['optimizer']['state'][1]['step'] == 8
    Regressor().load_state_dict(load(runs / way)['state_dict'])


def test_one_process_alone_is_not_sharded(tmp_path):
    with pytest.raises(SettingError, match="shard='fsdp' needs several processes, .*dist_train.sh CONFIG PROCESSES"):
        run(tmp_path, 1, launcher='none', shard='fsdp')


@pytest.mark.parametrize(
    'settings, message',
    [
        (dict(shard='fdsp'), "shard='fdsp' is unknown: give 'fsdp' or 'zero'"),
        (dict(shard='fsdp', custom_hooks=[dict(type='EMAHook')]), "EMAHook copies the model, .*shard='zero'"),
        (dict(shard='fsdp', model_wrapper_cfg=dict(find_unused_parameters=True)), 'leave out model_wrapper_cfg'),
        (
            dict(shard='zero', optim_wrapper=dict(optimizer=dict(type='Lion'))),
            'needs an optimizer of torch.optim.*Lion',
        ),
    ],
)
def test_what_does_not_go_with_sharding_is_named(settings, message):
    with pytest.raises(SettingError, match=message):
        check_shard(Config(settings))


@pytest.mark.slow
def test_one_process_tests_a_detector_that_two_trained_in_shares(tool, digits, tmp_path, on_cpu):
    config = 'configs/retinanet/pvt_nano_digits.py'
    place = (
        '--data-root',
        digits / 'coco',
        '--work-dir',
        tmp_path,
        '--cfg-options',
        *ALONE,
        'model.test_cfg.score_thr=0.0',
    )
    tool('dist_train.sh', config, 2, '--shard', 'fsdp', *place, 'train_cfg.max_epochs=1', env=on_cpu)
    done = tool('test.py', config, tmp_path / 'epoch_1.pth', *place)
    assert 'coco/bbox_mAP: ' in done.stdout and 'MISSING' not in done.stdout
