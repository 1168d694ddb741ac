"""Renames the weights of a PVT or PVTv2 for another library: ``convert_checkpoint.py SRC DST --to FORMAT``.

Necks and heads stay as they are. What has no place in the new format is named and left out.
"""

import argparse
import math
import re
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import CheckpointError, SettingError
from ..models import PVT, PVTv2
from ..weights.formats import ALONE, FORMATS, convert_backbones, find_backbones, identify, to_published
from ..weights.loading import find_state_dict
from ..weights.reading import read_checkpoint
from .launch import one_line_errors

Settings = tuple[dict, int, int]  # arch, image size in px a side, image channels
SIZE_V2 = 96  # px a side of the image on which PVTv2s are compared: they take any size

# What transformers' classifier has beyond a dense model.
CLASSIFIER = re.compile(r'cls_token|encoder\.layer_norm|classifier')


def settings_of(weights: dict[str, Tensor]) -> Settings:
    """The settings of the PVT or PVTv2 that has these weights, by published name.

    The weights do not tell the number of heads: it is one that mmdet's port takes too. Neither do they tell the strides
    of a PVTv2: they are those of a patch whose sides overlap by half.

    Raises:
        ValueError: The position embeddings are not square.
    """
    stages = [i for i in range(1, len(weights)) if f'patch_embed{i}.proj.weight' in weights]
    projections = [weights[f'patch_embed{i}.proj.weight'] for i in stages]
    reductions = [weights.get(f'block{i}.0.attn.sr.weight') for i in stages]
    embed_dims = [len(projection) for projection in projections]
    arch = dict(
        embed_dims=embed_dims,
        num_layers=[sum(f'block{i}.{j}.norm1.weight' in weights for j in range(len(weights))) for i in stages],
        num_heads=[dims // math.gcd(*embed_dims) for dims in embed_dims],
        mlp_ratios=[len(weights[f'block{i}.0.mlp.fc1.weight']) // dims for i, dims in zip(stages, embed_dims)],
        sr_ratios=[1 if reduction is None else reduction.shape[-1] for reduction in reductions],
        patch_sizes=[projection.shape[-1] for projection in projections],
    )
    if 'pos_embed1' not in weights:
        arch['strides'] = [(size + 1) // 2 for size in arch['patch_sizes']]
        arch['linear'] = [reduction is not None and reduction.shape[-1] == 1 for reduction in reductions]
        return arch, SIZE_V2, projections[0].shape[1]
    num_tokens = weights['pos_embed1'].shape[1]
    if math.isqrt(num_tokens) ** 2 != num_tokens:
        raise ValueError(f'its position embeddings ({num_tokens} tokens in the first stage) are not square')
    return arch, math.isqrt(num_tokens) * arch['patch_sizes'][0], projections[0].shape[1]


def load(model: nn.Module, weights: dict[str, Tensor]) -> nn.Module:
    """The model with these weights, in float64 and with one eps in all LayerNorms: the libraries differ in it."""
    model.double().eval()
    missing = model.load_state_dict(weights, strict=False).missing_keys
    if missing:
        raise ValueError(f'{", ".join(missing)} are missing')
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-6
    return model


def run_published(weights: dict[str, Tensor], settings: Settings, image: Tensor) -> dict[str, Tensor]:
    """What ``PVT`` or ``PVTv2`` gives for an image: the map of each stage, and the logits of a classifier."""
    arch, img_size, in_channels = settings
    build = partial(PVT, arch, img_size, in_channels) if 'pos_embed1' in weights else partial(PVTv2, arch, in_channels)
    outputs = {f'stage {i}': out for i, out in enumerate(load(build(), weights)(image), 1)}
    if 'head.weight' in weights:
        outputs['logits'] = load(build(num_classes=len(weights['head.weight'])), weights)(image)
    return outputs


def run_mmdet(weights: dict[str, Tensor], settings: Settings, image: Tensor) -> dict[str, Tensor]:
    """The same of mmdet's ports: the maps."""
    from mmdet.models.backbones import PyramidVisionTransformer, PyramidVisionTransformerV2

    arch, img_size, in_channels = settings
    arch, num_stages = dict(arch), len(arch['embed_dims'])
    if arch.pop('linear', None) is None:
        arch.update(pretrain_img_size=img_size, strides=arch['patch_sizes'], paddings=[0] * num_stages)
        kind = PyramidVisionTransformer
    else:
        del arch['patch_sizes']  # the port has its own
        kind = PyramidVisionTransformerV2
    arch['embed_dims'] = math.gcd(*arch['embed_dims'])  # mmdet multiplies by num_heads
    model = kind(in_channels=in_channels, num_stages=num_stages, out_indices=range(num_stages), **arch)
    return {f'stage {i}': out for i, out in enumerate(load(model, weights)(image), 1)}


def run_huggingface(weights: dict[str, Tensor], settings: Settings, image: Tensor) -> dict[str, Tensor]:
    """The same of transformers: the maps, of PVT but the last, where it always has a class token; the logits."""
    from transformers import PvtConfig, PvtForImageClassification

    arch, img_size, in_channels = settings
    if 'linear' in arch:
        return run_huggingface_v2(weights, settings, image)
    config = PvtConfig(
        image_size=img_size,
        num_channels=in_channels,
        num_encoder_blocks=len(arch['embed_dims']),
        depths=arch['num_layers'],
        sequence_reduction_ratios=arch['sr_ratios'],
        hidden_sizes=arch['embed_dims'],
        patch_sizes=arch['patch_sizes'],
        strides=arch['patch_sizes'],
        num_attention_heads=arch['num_heads'],
        mlp_ratios=arch['mlp_ratios'],
        num_labels=len(weights.get('classifier.weight', [0])),
    )
    weights = {f'pvt.{key}' if key.startswith('encoder.') else key: value for key, value in weights.items()}
    model = PvtForImageClassification(config)
    optional = {key: value for key, value in model.state_dict().items() if CLASSIFIER.search(key)}
    out = load(model, optional | weights)(image, output_hidden_states=True)
    outputs, depth = {}, 0
    for i, num_layers in enumerate(arch['num_layers'][:-1], 1):
        depth += num_layers
        tokens = out.hidden_states[depth - 1]
        side = math.isqrt(tokens.shape[1])
        outputs[f'stage {i}'] = tokens.transpose(1, 2).unflatten(2, (side, side))
    if 'classifier.weight' in weights:
        outputs['logits'] = out.logits
    return outputs


def run_huggingface_v2(weights: dict[str, Tensor], settings: Settings, image: Tensor) -> dict[str, Tensor]:
    """The same of transformers' PVTv2: the maps and the logits."""
    from transformers import PvtV2Config, PvtV2ForImageClassification

    arch, img_size, in_channels = settings
    config = PvtV2Config(
        image_size=img_size,
        num_channels=in_channels,
        num_encoder_blocks=len(arch['embed_dims']),
        depths=arch['num_layers'],
        sr_ratios=arch['sr_ratios'],
        hidden_sizes=arch['embed_dims'],
        patch_sizes=arch['patch_sizes'],
        strides=arch['strides'],
        num_attention_heads=arch['num_heads'],
        mlp_ratios=arch['mlp_ratios'],
        linear_attention=all(arch['linear']),
        num_labels=len(weights.get('classifier.weight', [])),
    )
    weights = {f'pvt_v2.{key}' if key.startswith('encoder.') else key: value for key, value in weights.items()}
    out = load(PvtV2ForImageClassification(config), weights)(image, output_hidden_states=True)
    outputs = {f'stage {i}': stage for i, stage in enumerate(out.hidden_states, 1)}
    return outputs | ({'logits': out.logits} if 'classifier.weight' in weights else {})


RUN = dict(published=run_published, mmdet=run_mmdet, huggingface=run_huggingface)


@torch.no_grad()
def compare(source: dict[str, Tensor], form: str, converted: dict[str, Tensor], to: str) -> str:
    """Runs the models of both formats, each with its weights, on one image.

    Returns:
        The line to print: the largest relative error, or why the models could not be run, as timm's never are.

    Raises:
        CheckpointError: The outputs differ: the conversion is wrong.
    """
    if 'timm' in (form, to):
        return "not verified: timm's models are not run; only names differ from the published ones"
    try:
        settings = settings_of(to_published(source)[0])
        _, img_size, in_channels = settings
        image = torch.randn(1, in_channels, img_size, img_size, dtype=torch.float64)
        expected, outputs = (RUN[name](weights, settings, image) for name, weights in ((form, source), (to, converted)))
    except ImportError as error:
        return f'not verified: {error.name} is not installed'
    except Exception as error:  # whatever odd weights provoke in one of the libraries
        reason = str(error).partition('\n')[0]
        return f'not verified, the models cannot be run: {type(error).__name__}: {reason}'
    errors = {
        name: float((outputs[name] - expected[name]).norm() / expected[name].norm())
        for name in expected
        if name in outputs
    }
    if not all(error < 1e-6 for error in errors.values()):
        raise CheckpointError(f'the converted backbone computes something else, nothing was written: {errors}')
    return (
        f'verified: {form} and {to} give the same outputs at {img_size}x{img_size} px ({", ".join(errors)}), '
        f'relative error {max(errors.values()):.0e} in float64 with one LayerNorm eps'
    )


def write(dst: Path, weights: dict[str, Tensor], meta: dict | None) -> None:
    """Writes a safetensors file, where the name ends so, or torch's, with ``meta`` if there is one.

    Raises:
        SettingError: It cannot be written.
    """
    try:
        dst.parent.mkdir(parents=True, exist_ok=True)
        if dst.suffix == '.safetensors':
            from safetensors.torch import save_file

            # transformers asks for the metadata; safetensors refuses tensors that share memory
            save_file({key: value.clone().contiguous() for key, value in weights.items()}, dst, {'format': 'pt'})
        else:
            torch.save(weights if meta is None else dict(meta=meta, state_dict=weights), dst)
    except ImportError as error:
        raise SettingError(f'{dst} needs safetensors: pip install safetensors') from error
    except OSError as error:
        raise SettingError(f'{dst} cannot be written: {error}') from error


def below(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The weights whose names begin with ``prefix``, without it."""
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}


@one_line_errors
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('src', help='checkpoint: whatever tools/test.py takes')
    parser.add_argument('dst', help='file to write; safetensors if it ends in .safetensors')
    parser.add_argument('--to', choices=FORMATS, required=True, help='names of the weights in DST')
    args = parser.parse_args()
    src, dst = Path(args.src), Path(args.dst)
    if dst.is_dir():
        raise SettingError(f'DST {dst} is a folder: name a file')
    if dst.resolve() in {path.resolve() for path in (src, *src.glob('*'))}:
        raise SettingError(f'DST {dst} is SRC: name another file')
    checkpoint = read_checkpoint(args.src)
    weights = find_state_dict(checkpoint, args.src)
    try:
        backbones = find_backbones(weights)
        converted, lost = convert_backbones(weights, args.to)
        for prefix, form in backbones.items():
            own = below(weights, prefix)
            family = identify(own)[0].name
            print(f'{args.src}: a {family} with {form} names under {prefix!r}')
            print(compare(own, form, below(converted, '' if args.to in ALONE else prefix), args.to))
    except CheckpointError as error:
        raise CheckpointError(f'{args.src}: {error}') from error
    if lost:
        print(f'dropped, no place in {args.to}: {", ".join(lost)}')
    if args.to in ALONE and not converted.keys() & {'classifier.weight', 'head.weight'}:
        dense = family == 'PVT' and 'pvt.encoder.layer_norm.weight' not in converted
        random = 'the class token, the last norm and the classifier' if dense else 'the classifier'
        library = 'transformers' if args.to == 'huggingface' else args.to
        print(f'SRC is no classifier: {library} starts {random} at random')
    meta = checkpoint.get('meta') if args.to not in ALONE and dst.suffix != '.safetensors' else None
    if 'state_dict' in checkpoint or 'model' in checkpoint:
        others = checkpoint.keys() - {'state_dict', 'model'} - ({'meta'} if meta else set())
        if others:
            print(f'dropped, no weights: {", ".join(sorted(map(str, others)))}')
    write(dst, converted, meta)
    print(f'{dst}: {len(converted)} weights written')
