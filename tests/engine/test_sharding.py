import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.fileio.backends import LocalBackend

from pvt_mm.engine.resume import latest_checkpoint
from pvt_mm.engine.saving import CheckpointHook
from pvt_mm.engine.sharding import check_shard
from pvt_mm.engine.shares import write_shares
from pvt_mm.engine.step import Step, unpack
from pvt_mm.errors import CheckpointError, SettingError, TrainingError
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


@pytest.mark.parametrize('way', WAYS)
def test_a_run_that_was_resumed_from_shares_is_bit_identical(runs, way):
    assert_same(read_checkpoint(str(runs / f'{way}_in_shares' / 'epoch_2.pth')), load(runs / way))


@pytest.mark.parametrize('way', WAYS)
def test_each_process_writes_its_own_share(runs, way):
    folder, whole = runs / f'{way}_in_shares', load(runs / way)
    shares = [torch.load(folder / 'epoch_2.shares' / f'{rank}.pth')['tensors'] for rank in (0, 1)]
    rest = load(folder)
    sizes = [sum(tensor.numel() for tensor in share.values()) for share in shares]
    states = sum(tensor.numel() for state in whole['optimizer']['state'].values() for tensor in state.values())
    assert max(sizes) < 0.55 * sum(sizes) and sum(sizes) > 0.9 * states
    assert not sum(tensor.numel() for state in rest['optimizer']['state'].values() for tensor in state.values()) > 100
    is_shared = {key for key, value in rest['state_dict'].items() if value.numel() != whole['state_dict'][key].numel()}
    assert is_shared == ({name for name, _ in Regressor().named_parameters()} if way == 'fsdp' else set())


@pytest.fixture
def copied(runs, tmp_path) -> Path:
    ignored = shutil.ignore_patterns('last_checkpoint')  # it names the original
    return Path(shutil.copytree(runs / 'fsdp_in_shares', tmp_path / 'run', ignore=ignored))


def test_a_checkpoint_that_lacks_a_share_is_named_and_the_one_before_it_taken(copied):
    (copied / 'epoch_2.shares' / '1.pth').unlink()
    with pytest.raises(CheckpointError, match=r'epoch_2.pth is sharded and \S+epoch_2.shares/1.pth is missing: copy'):
        read_checkpoint(str(copied / 'epoch_2.pth'))
    assert latest_checkpoint(str(copied)) == str(copied / 'epoch_1.pth')


def test_shares_of_two_checkpoints_are_not_mixed(copied):
    shutil.copy(copied / 'epoch_1.shares' / '1.pth', copied / 'epoch_2.shares')
    with pytest.raises(CheckpointError, match='epoch_2.shares/1.pth is of another'):
        read_checkpoint(str(copied / 'epoch_2.pth'))


@pytest.mark.parametrize(
    'tensors',
    [{('state_dict', 'head.bias', 'a'): torch.ones(1)}, {(): torch.ones(1)}, {5: torch.ones(1)}, [torch.ones(1)]],
)
def test_shares_that_do_not_fit_are_named(copied, tensors):
    file = copied / 'epoch_2.shares' / '1.pth'
    torch.save(torch.load(file) | dict(tensors=tensors), file)
    with pytest.raises(CheckpointError, match='epoch_2.pth is sharded, and its shares do not fit'):
        read_checkpoint(str(copied / 'epoch_2.pth'))


def test_a_checkpoint_is_removed_with_its_shares(copied):
    hook = CheckpointHook()
    hook.file_backend = LocalBackend()
    hook._remove(str(copied / 'epoch_1.pth'))
    assert sorted(path.name for path in copied.glob('epoch*')) == ['epoch_2.pth', 'epoch_2.shares']


def test_a_share_that_is_not_finite_is_not_written(tmp_path):
    with pytest.raises(TrainingError, match='state_dict.weight is not finite: no checkpoint is written'):
        write_shares(tmp_path / 'epoch_1.pth', {('state_dict', 'weight'): torch.tensor([torch.nan])})
    assert not list(tmp_path.iterdir())


def test_a_share_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / 'epoch_1.shares').write_text('a file in its place')
    with pytest.raises(SettingError, match='epoch_1.shares/0.pth was not written'):
        write_shares(tmp_path / 'epoch_1.pth', {('state_dict', 'weight'): torch.ones(1)})


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


@pytest.mark.parametrize('saved', ['resumed', 'in_shares'])
@pytest.mark.parametrize('way', WAYS)
def test_one_process_goes_on_from_a_sharded_run(runs, way, saved, tmp_path):
    (tmp_path / 'last_checkpoint').write_text(str(runs / f'{way}_{saved}' / 'epoch_1.pth'))
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
        (dict(shard_checkpoints=True), "shard_checkpoints=True needs shard='fsdp' or 'zero'"),
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
