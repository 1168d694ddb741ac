from functools import partial
from pathlib import Path

import pytest
import torch

from pvt_mm.engine import latest_checkpoint
from pvt_mm.engine.resume import check_resumable, drop_foreign_paths
from pvt_mm.errors import CheckpointError, SettingError
from tests.engine.tiny import line_runner


def put(folder, name: str, iteration: int, time: str = '20261125_120000') -> str:
    """A checkpoint of a run."""
    path = folder / name
    torch.save(RUN | dict(meta=dict(epoch=1, iter=iteration, time=time), state_dict=dict(a=torch.ones(999))), path)
    return str(path)


def flip(path: str) -> None:
    """Changes a byte of the weights, which torch.load does not see."""
    content = bytearray(Path(path).read_bytes())
    content[content.index(bytes.fromhex('0000803f0000803f')) + 8] ^= 1
    Path(path).write_bytes(content)


@pytest.fixture
def said(monkeypatch) -> list[str]:
    """What is logged of the choice of a checkpoint."""
    lines = []
    monkeypatch.setattr('pvt_mm.engine.resume.print_log', lambda text, **kwargs: lines.append(text))
    return lines


def test_the_latest_checkpoint_is_the_one_that_last_checkpoint_names(tmp_path, said):
    assert latest_checkpoint(str(tmp_path)) is None
    assert latest_checkpoint(str(tmp_path / 'nowhere')) is None
    put(tmp_path, 'epoch_2.pth', 4)
    newest = put(tmp_path, 'epoch_3.pth', 6)
    (tmp_path / 'last_checkpoint').write_text(f'{newest}\n')
    assert latest_checkpoint(str(tmp_path)) == newest
    (tmp_path / 'last_checkpoint').write_text('s3://bucket/epoch_3.pth')
    assert latest_checkpoint(str(tmp_path)) == 's3://bucket/epoch_3.pth'
    assert said == []


@pytest.mark.parametrize(
    'content, fault',
    [
        (None, 'is missing'),
        (b' \n', 'is empty'),
        (b'/old/epoch_3.pth', 'names /old/epoch_3.pth, which does not exist'),
        (b'x' * 5000, f'names {"x" * 200}, which does not exist'),
        (b'a\0b', 'names a\0b, which does not exist'),
        (b'<html>\n<body>', 'names <html>, which does not exist'),
        (b'\xff\xfe', 'cannot be read ('),
    ],
)
def test_without_last_checkpoint_the_newest_is_found_and_the_reason_said(tmp_path, said, content, fault):
    put(tmp_path, 'epoch_10.pth', 40)
    put(tmp_path, 'epoch_9.pth', 36)
    put(tmp_path, 'iter_41.pth', 41)
    put(tmp_path, 'best_acc_epoch_11.pth', 44)
    if content is not None:
        (tmp_path / 'last_checkpoint').write_bytes(content)
    assert latest_checkpoint(str(tmp_path)) == f'{tmp_path}/iter_41.pth'
    assert said[0].startswith(f'{tmp_path}/last_checkpoint {fault}')
    assert said[1:] == [f'the newest whole checkpoint is {tmp_path}/iter_41.pth']


def test_a_damaged_checkpoint_is_passed_over_and_named(tmp_path, said):
    good = put(tmp_path, 'epoch_1.pth', 2)
    flipped = put(tmp_path, 'epoch_2.pth', 4)
    cut = put(tmp_path, 'epoch_3.pth', 6)
    (tmp_path / 'last_checkpoint').write_text(cut)
    flip(flipped)
    Path(cut).write_bytes(Path(cut).read_bytes()[:-100])
    assert latest_checkpoint(str(tmp_path)) == good
    assert len(said) == 3 and cut in said[0] and flipped in said[1] and 'checksum' in said[1] and good in said[2]
    flip(good)
    with pytest.raises(SettingError, match=r'holds no whole checkpoint: .*epoch_[12].pth .*checksum.*--resume FILE'):
        latest_checkpoint(str(tmp_path))


def test_a_checkpoint_that_was_saved_later_than_the_named_one_is_taken(tmp_path, said):
    """As after a kill between the two; an earlier run's in the same folder is not later, however far it came."""
    put(tmp_path, 'epoch_12.pth', 24, time='20261101_120000')
    (tmp_path / 'last_checkpoint').write_text(put(tmp_path, 'epoch_1.pth', 2))
    newest = put(tmp_path, 'epoch_2.pth', 4)
    assert latest_checkpoint(str(tmp_path)) == newest
    assert said[0] == f'{tmp_path}/last_checkpoint names {tmp_path}/epoch_1.pth, which is older'


def test_the_folder_of_the_checkpoints_is_looked_at_where_it_is_another(tmp_path):
    (tmp_path / 'out' / 'work').mkdir(parents=True)
    newest = put(tmp_path / 'out' / 'work', 'epoch_2.pth', 4)
    assert latest_checkpoint(f'{tmp_path}/work', f'{tmp_path}/out') == newest


def test_a_last_checkpoint_that_names_nothing_in_an_empty_folder_is_an_error(tmp_path):
    for content, fault in [('', 'is empty'), ('/old/epoch_3.pth', 'names /old/epoch_3.pth, which does not exist')]:
        (tmp_path / 'last_checkpoint').write_text(content)
        with pytest.raises(SettingError, match=f'{fault}, and .* holds no other: name a checkpoint, --resume FILE'):
            latest_checkpoint(str(tmp_path))


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
        (dict(optimizer=None), 'optimizer'),  # no part, unlike one that is not there
        (dict(param_schedulers=3), 'param_schedulers'),
    ],
)
def test_a_part_that_is_missing_or_no_such_part_is_named(change, lacking):
    with pytest.raises(
        CheckpointError, match=f'a.pth is no checkpoint to resume from, it lacks {lacking}: .*load_from'
    ):
        check_resumable(RUN | change, 'a.pth')


def test_published_weights_cannot_be_resumed():
    with pytest.raises(CheckpointError, match='lacks meta.epoch, meta.iter, message_hub: to start from its'):
        check_resumable({'pos_embed1': 1}, 'pvt_small.pth')


def test_paths_of_a_checkpoint_stay_inside_the_work_dir(tmp_path):
    work_dir = tmp_path / 'work'
    own = dict(
        best_ckpt=f'{work_dir}/best_mIoU_iter_2.pth', keep_ckpt_ids=[1, 2], extra_ckpt_ids=[3], best_score=0.5, iter=4
    )
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
        ('extra_ckpt_ids', ['../a']),
    ]:
        info = {'best_score': 0.5, 7: 'a key that is no name', key: value}
        drop_foreign_paths(info, str(work_dir))
        assert info == {'best_score': 0.5, 7: 'a key that is no name'}, value


def test_what_is_left_alone_is_said(tmp_path, said):
    drop_foreign_paths(dict(best_ckpt='/data/best_a.pth'), str(tmp_path))
    assert said == [f"best_ckpt of the checkpoint is '/data/best_a.pth', not in {tmp_path}: it is left alone"]


@pytest.fixture
def runner(tmp_path):
    """Makes a runner that trains in ``tmp_path``."""
    return partial(line_runner, tmp_path / 'work')


def test_a_config_that_resumes_goes_on_where_something_was_saved_and_starts_anew_elsewhere(runner, tmp_path):
    first = runner('first', 1, resume=True)
    first.train()
    second = runner('second', 2, resume=True)
    second.load_or_resume()
    assert second.epoch == 1 and second.iter == 2
    assert torch.equal(second.model.layer.weight, first.model.layer.weight)
    (tmp_path / 'work' / 'last_checkpoint').unlink()
    third = runner('third', 2, resume=True)
    third.load_or_resume()
    assert third.iter == 2


def test_what_is_resumed_by_hand_is_held_to_the_same(runner, tmp_path):
    first = runner('first', 1)
    torch.save(first.model.state_dict(), tmp_path / 'weights.pth')
    with pytest.raises(CheckpointError, match='weights.pth is no checkpoint to resume from'):
        first.resume(str(tmp_path / 'weights.pth'))


def momentum(shape) -> dict:
    """The state of SGD for a weight and a bias of one number each."""
    group = dict(lr=0.1, momentum=0.9, dampening=0, weight_decay=0, nesterov=False, maximize=False, params=[0, 1])
    state = {i: dict(momentum_buffer=torch.ones(shape)) for i in range(2)}
    return dict(state=state, param_groups=[group])


@pytest.mark.parametrize(
    'change',
    [
        dict(optimizer={}),
        dict(optimizer=momentum((3, 3))),
        dict(gradients={'layer.weight': torch.ones(3)}),
        dict(optimizer=dict(state={}, param_groups=[])),
        dict(optimizer=dict(state={}, param_groups=5)),
        dict(param_schedulers=['text']),
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
