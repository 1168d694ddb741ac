import cv2
import numpy as np
import pytest
import torch
from torch import nn

from pvt_mm import PVT
from pvt_mm.commands import attention
from pvt_mm.commands.attention import attention_maps, lay_back, recorded, tokens_under
from pvt_mm.models.pvt import SpatialReductionAttention
from tests.commands.test_predict import checkpoint
from tests.common import NANO


@pytest.mark.parametrize('sr_ratio', [1, 2])
def test_the_weights_are_those_of_the_layer(sr_ratio):
    torch.manual_seed(0)
    attn = SpatialReductionAttention(8, 2, sr_ratio, 0.0, 0.0).eval()
    attn.proj = nn.Identity()
    x, size, tokens = torch.randn(3, 24, 8), (4, 6), torch.tensor([0, 5, 23])
    expected, kept = attn(x, size), []
    attn.kv.register_forward_hook(lambda module, inputs, output: kept.append(output[..., 8:]))
    with recorded(attn, tokens) as recordings:
        out = attn(x, size)
    assert torch.equal(out, expected)  # the layer computes what it did
    (weights,), (values,) = recordings, kept
    assert weights.shape == (3, 2, 3, 24 // sr_ratio**2)
    torch.testing.assert_close(weights.sum(3), torch.ones(3, 2, 3))
    by_hand = weights @ values.unflatten(2, (2, 4)).transpose(1, 2)
    torch.testing.assert_close(by_hand.transpose(1, 2).flatten(2), out[:, tokens], rtol=0, atol=1e-5)
    attn(x, size)
    assert len(recordings) == 1  # only within the block


def test_a_map_for_each_stage_sums_to_one_and_the_model_stays_as_it_was():
    torch.manual_seed(0)
    pvt, image = PVT(arch=dict(NANO, num_layers=(1, 2, 1, 1)), img_size=64).eval(), torch.randn(1, 3, 64, 96)
    before = pvt(image)
    maps = attention_maps(pvt, image, (90, 10, 90, 10), block=0)
    assert [tuple(weights.shape) for weights in maps] == [(2, 3)] * 4
    for weights in maps:
        torch.testing.assert_close(weights.sum(), torch.tensor(1.0))
    assert all(torch.equal(*pair) for pair in zip(before, pvt(image)))
    with pytest.raises(attention.SettingError, match='--block 1: stage 1 has the layers 0 to 0'):
        attention_maps(pvt, image, (90, 10, 90, 10), block=1)


def test_a_box_is_the_mean_of_its_tokens():
    torch.manual_seed(0)
    pvt, image = PVT(arch=NANO, img_size=64).eval(), torch.randn(1, 3, 64, 96)
    box = attention_maps(pvt, image, (32, 0, 96, 32))  # two tokens of 32 px
    points = [attention_maps(pvt, image, (x, 1, x, 1))[3] for x in (32, 95)]
    torch.testing.assert_close(box[3], (points[0] + points[1]) / 2)


def test_tokens_are_those_that_the_region_touches():
    size = (2, 3)  # tokens of 8 px: 0 1 2 / 3 4 5
    for box, tokens in {
        (0, 0, 0, 0): [0],
        (7.9, 7.9, 7.9, 7.9): [0],
        (8, 0, 8, 0): [1],
        (17, 9, 17, 9): [5],
        (0, 0, 8, 8): [0],
        (0, 0, 8.1, 8.1): [0, 1, 3, 4],
        (9, 9, 24, 16): [4, 5],
        (30, 19, 30, 19): [5],  # beyond the last whole patch
    }.items():
        assert tokens_under(box, 8, size).tolist() == tokens


def test_keys_lie_where_they_were_taken_from():
    # the input is 64 x 128: an image of 40 x 100 at (1.2, 1.5), 60 x 120, and padding; 4 x 8 keys of 16 px
    for row, column in ((0, 0), (1, 5), (3, 7)):
        weights = torch.zeros(4, 8)
        weights[row, column] = 1
        shown = lay_back(weights, 16, (1.2, 1.5), (40, 100))
        assert shown.shape == (40, 100)
        y, x = np.unravel_index(shown.argmax(), shown.shape)
        assert (int(y * 1.5 // 16), int(x * 1.2 // 16)) == (row, column)
    uncovered = lay_back(torch.ones(1, 3), 32, (1.0, 1.0), (40, 100))  # 100 x 40 px hold 3 x 1 keys
    assert (uncovered[:31, :95] == 1).all() and (uncovered[33:] == 0).all() and (uncovered[:, 97:] == 0).all()


@pytest.fixture
def run(command, tmp_path):
    """Draws the attention of a config's model; returns what the command exits with."""

    def run(config: str, *args) -> str | int | None:
        path = checkpoint(config, tmp_path / 'a.pth')
        return command(attention, config, path, *args, '--out', tmp_path / 'out', '--device', 'cpu')

    return run


@pytest.mark.parametrize('config', ['retinanet/pvt_nano_digits', 'semantic_fpn/pvt_nano_digits'])
def test_a_picture_shows_where_a_pixel_of_the_image_looks(run, tmp_path, monkeypatch, config):
    cv2.imwrite(str(tmp_path / 'image.png'), np.random.default_rng(0).integers(0, 256, (50, 100, 3), np.uint8))
    asked = []
    monkeypatch.setattr(
        attention, 'attention_maps', lambda pvt, image, box, block: asked.append((image.shape, box)) or maps
    )
    maps = [torch.full((2, 4), 1 / 8)] * 4
    assert run(config, tmp_path / 'image.png', '--point', '99,49') is None
    picture = cv2.imread(str(tmp_path / 'out' / 'attention' / 'image_99_49.png'))
    assert picture.shape[1] == 1600 and picture.std() > 10
    ((shape, box),) = asked
    scale = (box[0] / 99, box[1] / 49)
    assert shape[3] - scale[0] <= box[0] + 0.01 < shape[3]  # no padding in a row: its last pixel
    assert shape[2] >= round(50 * scale[1])


def test_what_does_not_fit_ends_in_one_line(run, digits):
    image = digits / 'coco' / 'val2017' / '000000000001.jpg'
    for args, message in {
        (image, '--point', '96,10'): 'which has 96x96 px',
        (image, '--box', '10,10,5,20'): 'does not lie in',
        (image, '--point', '10'): '--point 10 must be 2 numbers',
        (image, '--box', '1,2,a,4'): '--box 1,2,a,4 must be 4 numbers',
        (digits / 'none.jpg', '--point', '1,1'): 'no image',
    }.items():
        assert message in run('retinanet/pvt_nano_digits', *args)
    assert 'has no PVT' in run('retinanet/r18_nano_digits', image, '--point', '1,1')
