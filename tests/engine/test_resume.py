import logging

import pytest
import torch
from mmengine.model import BaseModel
from torch import nn

from pvt_mm.engine import Runner, latest_checkpoint
from pvt_mm.engine.resume import check_resumable, drop_foreign_paths
from pvt_mm.errors import CheckpointError, SettingError


def point(work_dir, content: str) -> str:
    (work_dir / 'last_checkpoint').write_text(content)
    return str(work_dir)


def test_the_latest_checkpoint_is_the_one_that_last_checkpoint_names(tmp_path):
    assert latest_checkpoint(str(tmp_path)) is None
    assert latest_checkpoint(str(tmp_path / 'nowhere')) is None
    (tmp_path / 'epoch_3.pth').touch()
    assert latest_checkpoint(point(tmp_path, f'{tmp_path}/epoch_3.pth\n')) == f'{tmp_path}/epoch_3.pth'
    assert latest_checkpoint(point(tmp_path, 's3://bucket/epoch_3.pth')) == 's3://bucket/epoch_3.pth'


def test_a_last_checkpoint_that_names_nothing_ends_in_one_line(tmp_path):
    with pytest.raises(SettingError, match='/last_checkpoint is empty: name a checkpoint, --resume FILE'):
        latest_checkpoint(point(tmp_path, ' \n'))
    with pytest.raises(SettingError, match='names /old/epoch_3.pth, which does not exist: name a checkpoint, --resume'):
        latest_checkpoint(point(tmp_path, '/old/epoch_3.pth'))
    for content in ('x' * 5000, 'a\0b', '<html>\n<body>'):
        with pytest.raises(SettingError, match='which does not exist: name a checkpoint') as error:
            latest_checkpoint(point(tmp_path, content))
        assert '\n' not in str(error.value) and len(str(error.value)) < 500
    (tmp_path / 'epoch_3.pth').touch()
    with pytest.raises(SettingError, match=f'if the folder was moved, --resume {tmp_path}/epoch_3.pth'):
        latest_checkpoint(point(tmp_path, '/old/epoch_3.pth'))
    (tmp_path / 'last_checkpoint').write_bytes(b'\xff\xfe')
    with pytest.raises(SettingError, match='/last_checkpoint cannot be read .*utf-8'):
        latest_checkpoint(str(tmp_path))
    with pytest.raises(SettingError, match='cannot be read .*Not a directory'):
        latest_checkpoint(str(tmp_path / 'epoch_3.pth'))


RUN = dict(
    meta=dict(epoch=1, iter=4),
    message_hub=dict(log_scalars={}, runtime_info={}, resumed_keys={}),
    optimizer=dict(state={}, param_groups=[]),
    param_schedulers=[],
    state_dict={},
)


def test_a_checkpoint_of_a_run_can_be_resumed():
    check_resumable(RUN, 'a.pth')
    check_resumable({key: value for key, value in RUN.items() if key != 'param_schedulers'}, 'a.pth')


@pytest.mark.parametrize(
    'change, lacking',
    [
        (dict(meta=dict(epoch=1)), 'meta.iter'),
        (dict(meta=dict(epoch='1', iter=4)), 'meta.epoch'),
        (dict(message_hub=None), 'message_hub'),
        (dict(message_hub=dict(log_scalars={}, runtime_info=[], resumed_keys={})), 'message_hub'),
        (dict(message_hub=dict(log_scalars={}, runtime_info={1: 2}, resumed_keys={})), 'message_hub'),
        (dict(optimizer=None), 'optimizer'),
        (dict(param_schedulers=3), 'param_schedulers'),
    ],
)
def test_a_part_that_is_missing_or_no_such_part_is_named(change, lacking):
    with pytest.raises(
        CheckpointError, match=f'a.pth is no checkpoint to resume from, it lacks {lacking}: .*load_from'
    ):
        check_resumable(RUN | change, 'a.pth')


def test_published_weights_cannot_be_resumed():
    with pytest.raises(CheckpointError, match='lacks meta.epoch, meta.iter, message_hub, optimizer: to start from its'):
        check_resumable({'pos_embed1': 1}, 'pvt_small.pth')


def test_paths_of_a_checkpoint_stay_inside_the_work_dir(tmp_path):
    work_dir = tmp_path / 'work'
    own = dict(best_ckpt=f'{work_dir}/best_mIoU_iter_2.pth', keep_ckpt_ids=[1, 2], best_score=0.5, iter=4)
    info = dict(own)
    drop_foreign_paths(info, str(work_dir))
    assert info == own
    for key, value in [
        ('best_ckpt', f'{tmp_path}/best_mIoU_iter_2.pth'),
        ('best_ckpt_bbox_mAP', f'{tmp_path}/data'),
        ('best_ckpt', str(work_dir)),
        ('best_ckpt', f'{work_dir}/..'),
        ('best_ckpt', f'{work_dir}/../best_a'),
        ('best_ckpt', f'{work_dir}/best_a/../..'),
        ('best_ckpt', f'{work_dir}/vis_data'),
        ('best_ckpt', 's3://bucket/best_a.pth'),
        ('best_ckpt', 'best\0'),
        ('best_ckpt', 3),
        ('keep_ckpt_ids', ['/../../data', 2]),
        ('keep_ckpt_ids', 'abc'),
    ]:
        info = {'best_score': 0.5, 7: 'a key that is no name', key: value}
        drop_foreign_paths(info, str(work_dir))
        assert info == {'best_score': 0.5, 7: 'a key that is no name'}, value


def test_what_is_left_alone_is_said(tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr('pvt_mm.engine.resume.print_log', lambda text, **kwargs: said.append((text, kwargs['level'])))
    drop_foreign_paths(dict(best_ckpt='/data/best_a.pth'), str(tmp_path))
    assert said == [
        (f"best_ckpt of the checkpoint is '/data/best_a.pth', not in {tmp_path}: it is left alone", logging.WARNING)
    ]


class Line(BaseModel):
    """A model that learns the mean of numbers."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, *x, mode):
        return dict(loss=self.layer(torch.stack(x)).square().mean())


@pytest.fixture
def runner(tmp_path):
    """Makes a runner that trains in ``tmp_path`` for the given epochs of two iterations."""

    def make(name: str, epochs: int, work_dir=tmp_path / 'work', **settings) -> Runner:
        return Runner(
            Line(),
            str(work_dir),
            train_dataloader=dict(
                batch_size=2, sampler=dict(type='DefaultSampler', shuffle=False), dataset=list(torch.ones(4, 1))
            ),
            train_cfg=dict(by_epoch=True, max_epochs=epochs),
            optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
            default_hooks=dict(runtime_info=None, logger=None),
            experiment_name=f'{tmp_path.name}_{name}',
            **settings,
        )

    return make


def test_a_config_that_resumes_goes_on_where_something_was_saved_and_starts_anew_elsewhere(runner, tmp_path):
    first = runner('first', 1, resume=True)
    first.train()
    second = runner('second', 2, resume=True)
    second.load_or_resume()
    assert second.epoch == 1 and second.iter == 2
    assert torch.equal(second.model.layer.weight, first.model.layer.weight)
    (tmp_path / 'work' / 'last_checkpoint').write_text('')
    with pytest.raises(SettingError, match='last_checkpoint is empty'):
        runner('third', 2, resume=True).train()


def test_what_is_resumed_by_hand_is_held_to_the_same(runner, tmp_path):
    first = runner('first', 1)
    torch.save(first.model.state_dict(), tmp_path / 'weights.pth')
    with pytest.raises(CheckpointError, match='weights.pth is no checkpoint to resume from'):
        first.resume(str(tmp_path / 'weights.pth'))


@pytest.mark.parametrize(
    'change',
    [
        dict(optimizer={}),
        dict(optimizer=dict(state={}, param_groups=[])),
        dict(optimizer=dict(state={}, param_groups=5)),
        dict(param_schedulers=['text']),
        dict(meta=dict(epoch=1, iter=2, seed='text')),
    ],
)
def test_a_training_state_that_does_not_load_ends_in_one_line(runner, tmp_path, change):
    runner('first', 1, param_scheduler=dict(type='ConstantLR', factor=1)).train()
    checkpoint = torch.load(tmp_path / 'work' / 'epoch_1.pth', weights_only=True)
    torch.save(checkpoint | change, tmp_path / 'a.pth')
    second = runner('second', 2, param_scheduler=dict(type='ConstantLR', factor=1), resume=True)
    second._load_from = str(tmp_path / 'a.pth')
    with pytest.raises(CheckpointError, match=r'a\.pth cannot be resumed \(\w+Error: .*load_from'):
        second.train()
