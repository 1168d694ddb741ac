"""Our runner, with hooks and checkpoints of other people's."""

import gc

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS, RUNNERS

from pvt_mm import PVT, Runner
from pvt_mm.errors import CheckpointError

ARCH = dict(embed_dims=(8,), num_layers=(1,), num_heads=(1,), mlp_ratios=(1,), sr_ratios=(1,), patch_sizes=(4,))


@MODELS.register_module()
class TinyModel(BaseModel):
    def __init__(self, img_size):
        super().__init__()
        self.backbone = PVT(ARCH, img_size=img_size, out_indices=(0,))

    def forward(self, inputs, data_samples=None, mode='tensor'):
        return self.backbone(inputs)


def runner(tmp_path, img_size=64, **settings) -> Runner:
    hooks = [dict(type='EMAHook')]
    cfg = Config(
        dict(
            runner_type='PVTRunner',
            model=dict(type='TinyModel', img_size=img_size),
            work_dir=str(tmp_path / 'work'),
            custom_hooks=hooks,
            experiment_name=f'test_{id(tmp_path)}_{img_size}',
            default_scope='mmengine',
            **settings,
        )
    )
    built = RUNNERS.build(cfg)
    built.call_hook('before_run')
    return built


@pytest.mark.parametrize('wrapper', ['state_dict', 'model', None])
def test_the_averaged_copy_is_loaded_right_at_another_size(tmp_path, wrapper):
    """mmengine's EMAHook reads the checkpoint before the model does, and it is the copy that is tested."""
    weights = TinyModel((32, 128)).state_dict()
    torch.save({wrapper: weights} if wrapper else weights, tmp_path / 'a.pth')
    built = runner(tmp_path, img_size=(64, 256))
    assert type(built) is Runner
    built.load_checkpoint(str(tmp_path / 'a.pth'))
    expected = TinyModel((64, 256))
    expected.load_state_dict(weights)
    ema = next(hook for hook in built.hooks if type(hook).__name__ == 'EMAHook').ema_model.module
    for model in (built.model, ema):
        assert torch.equal(model.backbone.pos_embed1, expected.backbone.pos_embed1)
    assert built.load_checkpoint(str(tmp_path / 'a.pth'))['state_dict']


def test_datasets_are_built_without_the_garbage_collector(tmp_path):
    collected = []

    class Annotations(torch.utils.data.Dataset):
        def __init__(self, fails):
            collected.append(gc.isenabled())
            if fails:
                raise ValueError('no annotations')

        def __len__(self):
            return 1

    DATASETS.register_module(module=Annotations, force=True)
    built = runner(tmp_path)
    loader = dict(batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler'))
    built.build_dataloader(dict(dataset=dict(type='Annotations', fails=False), **loader))
    assert collected == [False] and gc.isenabled()
    with pytest.raises(ValueError, match='no annotations'):
        built.build_dataloader(dict(dataset=dict(type='Annotations', fails=True), **loader))
    assert gc.isenabled()


def test_a_second_run_in_a_process_has_a_visualizer_of_its_own(tmp_path):
    settings = dict(visualizer=dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')], name='same'))
    for name in ('first', 'second'):
        runner(tmp_path / name, **settings).visualizer.add_scalar('loss', 1.0)
        assert list((tmp_path / name).rglob('scalars.json'))


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    torch.save(dict(fc=torch.ones(1)), tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match='it is a checkpoint of another model'):
        runner(tmp_path).load_checkpoint(str(tmp_path / 'a.pth'))


def test_a_run_of_another_img_size_is_not_resumed(tmp_path):
    run = dict(
        state_dict=TinyModel(64).state_dict(),
        meta=dict(epoch=1, iter=4),
        message_hub=dict(log_scalars={}, runtime_info={}, resumed_keys={}),
        optimizer={},
    )
    torch.save(run, tmp_path / 'epoch_1.pth')
    with pytest.raises(CheckpointError, match='epoch_1.pth was trained with another img_size .*resume with that'):
        runner(tmp_path, img_size=96, resume_anyway=True).resume(str(tmp_path / 'epoch_1.pth'))


@pytest.mark.parametrize(
    'loop, batch_size, said',
    [
        (dict(type='IterBasedTrainLoop', max_iters=80), 4, 'train_cfg.max_iters=320;'),
        (dict(type='IterBasedTrainLoop', max_iters=80), 16, None),
        (dict(type='EpochBasedTrainLoop', max_epochs=2), 4, None),
    ],
)
def test_iterations_that_are_not_scaled_with_the_learning_rate_are_said(tmp_path, monkeypatch, loop, batch_size, said):
    loader = dict(batch_size=batch_size, dataset=dict(type='Empty'), sampler=dict(type='DefaultSampler', shuffle=False))
    optimizer = dict(optimizer=dict(type='SGD', lr=0.1))
    built = runner(tmp_path, train_dataloader=loader, train_cfg=loop, optim_wrapper=optimizer)
    lines = []
    monkeypatch.setattr('pvt_mm.engine.runner.print_log', lambda line, **_: lines.append(line))
    wrapper = built.build_optim_wrapper(built.optim_wrapper)
    built.scale_lr(wrapper, dict(enable=True, base_batch_size=16))
    assert wrapper.optimizer.param_groups[0]['lr'] == 0.1 * batch_size / 16
    assert [said in line for line in lines] == ([True] if said else [])
