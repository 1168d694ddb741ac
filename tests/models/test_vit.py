import pytest
import torch
from torch import nn

from pvt_mm.models import ColumnarViT
from pvt_mm.models.layers import _averages
from pvt_mm.weights.loading import load_weights


def small(**kwargs) -> ColumnarViT:
    torch.manual_seed(0)
    return ColumnarViT(**{**dict(patch_size=16, img_size=64, embed_dims=32, num_heads=4), **kwargs}).eval()


def test_parameters_are_those_of_the_papers_vit_small():
    with torch.device('meta'):
        model = ColumnarViT(patch_size=16)
    body = sum(p.numel() for p in model.parameters())
    classifier = 768 + 2 * 768 + 1000 * 768 + 1000  # class token, norm, head
    assert round((body + classifier) / 1e6, 1) == 48.8


@pytest.mark.parametrize('patch_size', [4, 16, 32])
@pytest.mark.parametrize('shape', [(64, 64), (96, 160), (100, 70)])
def test_maps_have_the_pyramids_strides(patch_size, shape):
    with torch.no_grad():
        maps = small(patch_size=patch_size)(torch.randn(2, 3, *shape))
    assert [tuple(x.shape) for x in maps] == [(2, 32, shape[0] // s, shape[1] // s) for s in (4, 8, 16, 32)]
    assert all(x.is_contiguous() and x.isfinite().all() for x in maps)


def test_layers_2_4_6_and_8_are_resampled():
    model, images = small(), torch.randn(1, 3, 64, 64)
    seen = []
    for block in model.blocks:
        block.register_forward_hook(lambda module, args, out: seen.append(out))
    with torch.no_grad():
        maps = model(images)
    assert len(seen) == 8
    same_size = seen[5].transpose(1, 2).unflatten(2, (4, 4))  # stride 16 is the tokens' own
    torch.testing.assert_close(maps[2], same_size)
    torch.testing.assert_close(maps[3], nn.functional.avg_pool2d(seen[7].transpose(1, 2).unflatten(2, (4, 4)), 2))
    torch.testing.assert_close(
        maps[0],
        nn.functional.interpolate(seen[1].transpose(1, 2).unflatten(2, (4, 4)), scale_factor=4, mode='bilinear'),
    )


def test_a_layer_is_the_textbooks():
    """One layer by explicit softmax and by torch's own modules."""
    model, x = small(), torch.randn(2, 16, 32)
    block = model.blocks[0]
    with torch.no_grad():
        normed = block.norm1(x)
        q, k, v = (t.reshape(2, 16, 4, 8).transpose(1, 2) for t in block.attn.qkv(normed).chunk(3, dim=-1))
        attention = (q @ k.transpose(-2, -1) / 8**0.5).softmax(-1) @ v
        y = x + block.attn.proj(attention.transpose(1, 2).reshape(2, 16, 32))
        y = y + block.mlp.fc2(nn.functional.gelu(block.mlp.fc1(block.norm2(y))))
        torch.testing.assert_close(block(x), y)


def test_checkpointing_gives_the_same_gradients():
    images = torch.randn(1, 3, 64, 64)
    gradients = []
    for with_cp in (False, True):
        model = small(with_cp=with_cp).train()
        sum(x.mean() for x in model(images)).backward()
        gradients.append([p.grad for p in model.parameters()])
    torch.testing.assert_close(*gradients)


def test_classification_weights_of_another_size_load():
    model, other = small(), small(img_size=96)
    weights = {**other.state_dict(), 'cls_token': torch.zeros(1, 1, 32), 'head.weight': torch.zeros(10, 32)}
    report = load_weights(model, weights, 'weights', strict=True)
    assert report.resized == ['pos_embed 6x6 to 4x4'] and report.classifier == ['cls_token', 'head.weight']


@pytest.mark.parametrize(
    'settings, message',
    [
        (dict(num_heads=5), 'embed_dims=32 must be a multiple of num_heads=5'),
        (dict(out_indices=(1, 8), out_strides=(4, 8)), r'out_indices=\(1, 8\) must be from 0 to 7'),
        (dict(out_indices=(1, 3)), 'out_strides'),
        (dict(patch_size=128), 'img_size=64 is smaller'),
    ],
)
def test_settings_that_do_not_fit_raise(settings, message):
    with pytest.raises(ValueError, match=message):
        small(**settings)


def test_an_image_that_is_too_small_raises():
    with pytest.raises(ValueError, match='16x64 px is too small: at least 32 px'):
        small()(torch.zeros(1, 3, 16, 64))


@pytest.mark.parametrize('old, new', [((4, 4), (2, 2)), ((7, 28), (3, 14)), ((5, 9), (5, 4)), ((6, 6), (6, 6))])
def test_adaptive_pooling_is_a_product(old, new):
    x = torch.randn(2, 3, *old)
    rows, columns = (_averages(length, number, x) for length, number in zip(old, new))
    torch.testing.assert_close(rows @ x @ columns.T, nn.functional.adaptive_avg_pool2d(x, new))
