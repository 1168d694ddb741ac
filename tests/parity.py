"""The published implementation's outputs in ``tests/data`` and the weights and inputs that they were made with.

The files were computed by the published code in float64; weights and inputs come from formulas, so that no
checkpoint is needed. The maps are sub-sampled as ``out[:, ::16, ::s, ::s]``.
"""

import math
import zlib
from pathlib import Path

import numpy as np
import torch

DATA = Path(__file__).parent / 'published'
DENSE = np.load(DATA / 'official_pvt_dense.npz')
LOGITS = np.load(DATA / 'official_pvt_classification.npz')
DENSE_V2 = np.load(DATA / 'official_pvt_v2_dense.npz')
LOGITS_V2 = np.load(DATA / 'official_pvt_v2_classification.npz')
TRANS2SEG = np.load(DATA / 'official_trans2seg_head.npz')
DENSE_CASES, DENSE_V2_CASES = (
    list(dict.fromkeys(key.rpartition('_f')[0] for key in file if not key.endswith('_stats')))
    for file in (DENSE, DENSE_V2)
)


def formula_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A published state dict for ``model``: every value follows from its key and shape."""
    weights = {}
    for key, own in model.named_parameters():
        value = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(tuple(own.shape))
        if key.startswith('pos_embed') or key == 'cls_token':
            value = 0.5 * value
        elif value.ndim == 1:
            value = 1 + 0.1 * value if key.endswith('weight') else 0.1 * value
        else:
            value = value / math.sqrt(math.prod(value.shape[1:]))
        weights[key] = torch.from_numpy(value.astype(np.float32))
    return weights


def formula_images(batch: int, height: int, width: int) -> torch.Tensor:
    images = np.random.default_rng(7).standard_normal((batch, 3, height, width))
    return torch.from_numpy(images.astype(np.float32))


def relative_error(ours: torch.Tensor, theirs: np.ndarray) -> float:
    """||ours - theirs|| / ||theirs|| over the whole map."""
    theirs = torch.from_numpy(theirs).double()
    return float((ours.cpu().double() - theirs).norm() / theirs.norm())


def dense_errors(maps: tuple[torch.Tensor, ...], case: str, published=DENSE) -> list[float]:
    """The relative error of each of the four maps of a case."""
    errors = []
    for i, ours in enumerate(maps, 1):
        shape, step = published[f'{case}_f{i}_stats'][:4], int(published[f'{case}_f{i}_stats'][4])
        assert tuple(ours.shape) == tuple(int(n) for n in shape), (case, i, ours.shape)
        errors.append(relative_error(ours[:, ::16, ::step, ::step], published[f'{case}_f{i}']))
    return errors
