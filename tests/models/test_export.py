"""An exported backbone runs at every size from 64 px, the learned one included."""

import onnxruntime
import pytest
import torch

from pvt_mm import PVT, ColumnarViT
from tests.common import NANO

# The learned size, other grids with as many tokens in some stage, sides that are no multiple of 32.
SIZES = [(224, 224), (112, 448), (196, 256), (101, 135), (448, 448)]
DYNAMIC = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}


@pytest.fixture(params=['pvt', 'classifier', 'vit'])
def model(request) -> torch.nn.Module:
    torch.manual_seed(0)
    if request.param == 'vit':
        return ColumnarViT(embed_dims=32, num_heads=2, num_layers=4, out_indices=(0, 1, 2, 3)).eval()
    model = PVT(NANO, num_classes=5 if request.param == 'classifier' else None).eval()
    for name in model.grids:  # at their usual scale a wrong position would hardly be seen
        torch.nn.init.normal_(getattr(model, name))
    return model


def check(run, model, tolerance: float, batches=(1, 3)) -> None:
    for batch in batches:
        for size in SIZES:
            images = torch.randn(batch, 3, *size)
            with torch.no_grad():
                expected = model(images)
            out = run(images)
            if isinstance(expected, torch.Tensor):
                expected, out = (expected,), (out,) if isinstance(out, torch.Tensor) else out
            for ours, theirs in zip(out, expected, strict=True):
                assert (ours - theirs).norm() / theirs.norm() < tolerance, size


@pytest.mark.parametrize('size', [(224, 224), (96, 160)])
def test_torch_export_at_any_size_runs_at_every_size(model, size):
    exported = torch.export.export(model, (torch.randn(2, 3, *size),), dynamic_shapes=(DYNAMIC,)).module()
    check(exported, model, 1e-6)


@pytest.mark.parametrize('size', [(224, 224), (96, 160)])
def test_a_traced_model_is_right_at_every_size(model, size):
    with torch.no_grad():
        traced = torch.jit.trace(model, (torch.randn(1, 3, *size),))
    check(traced, model, 1e-6)


@pytest.mark.slow
@pytest.mark.parametrize('size', [(224, 224), (96, 160)])
def test_onnx_runs_at_every_size(model, size, tmp_path):
    path = str(tmp_path / 'model.onnx')
    torch.onnx.export(model, (torch.randn(2, 3, *size),), path, dynamo=True, dynamic_shapes=(DYNAMIC,), verbose=False)
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])

    def run(images):
        return [torch.from_numpy(out) for out in session.run(None, {session.get_inputs()[0].name: images.numpy()})]

    check(run, model, 1e-4)
