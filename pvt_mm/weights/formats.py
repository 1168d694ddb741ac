"""The formats of PVT's and PVTv2's weights: what other libraries call them, the way to the published names and back.

=============  =====================================================================================================
published      the papers' repository and this package: ``block1.0.attn.q.weight``
mmdet          mmdet's own ports, ``PyramidVisionTransformer`` and ``...V2``: ``layers.0.1.1.attn.attn.in_proj_weight``
huggingface    transformers' ``Pvt...`` and ``PvtV2...`` models: ``pvt.encoder.block.0.0.attention.self.query.weight``
timm           timm's ``PyramidVisionTransformerV2``, of PVTv2 alone: ``stages.0.blocks.0.attn.q.weight``
=============  =====================================================================================================

All of it works on names and tensors alone, without a model.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, count

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from torch import Tensor

from ..errors import CheckpointError

FORMATS = ('published', 'mmdet', 'huggingface', 'timm')
# Those in which a file holds one backbone and nothing else.
ALONE = ('huggingface', 'timm')

Row = tuple[str | None, ...]


@dataclass(frozen=True)
class Family:
    """The names of a backbone's weights in each format that it has.

    A row per tensor, a column per format. None: the format has no place for it. A name that several rows share is one
    tensor, which holds theirs one after another along the first dimension. {s} and {n} are the stage and the layer,
    counted from 0; {S} and {N} the same from 1; {p} is weight or bias; {embed} is where timm has a stage's embedding.
    """

    name: str
    formats: tuple[str, ...]
    stage: tuple[Row, ...]
    layer: tuple[Row, ...]
    classifier: tuple[Row, ...]
    signature: tuple[str, ...]  # published names that every such backbone has, whatever its out_indices

    def signature_in(self, form: str) -> list[str]:
        """The names of the signature in a format."""
        names = {row[0]: row[self.formats.index(form)] for row in _fill(self.stage, 0) + _fill(self.layer, 0)}
        return [names[key] for key in self.signature]


PVT = Family(
    name='PVT',
    formats=FORMATS[:3],
    stage=(
        ('pos_embed{S}', 'layers.{s}.1.0.pos_embed', 'pvt.encoder.patch_embeddings.{s}.position_embeddings'),
        ('patch_embed{S}.proj.{p}', 'layers.{s}.0.projection.{p}', 'pvt.encoder.patch_embeddings.{s}.projection.{p}'),
        ('patch_embed{S}.norm.{p}', 'layers.{s}.0.norm.{p}', 'pvt.encoder.patch_embeddings.{s}.layer_norm.{p}'),
    ),
    layer=tuple(
        (f'block{{S}}.{{n}}.{ours}', f'layers.{{s}}.1.{{N}}.{mmdet}', f'pvt.encoder.block.{{s}}.{{n}}.{huggingface}')
        for ours, mmdet, huggingface in (  # mmdet's layer 0 is the position embedding
            ('norm1.{p}', 'norm1.{p}', 'layer_norm_1.{p}'),
            ('attn.q.{p}', 'attn.attn.in_proj_{p}', 'attention.self.query.{p}'),
            ('attn.kv.{p}', 'attn.attn.in_proj_{p}', 'attention.self.key.{p}'),
            ('attn.kv.{p}', 'attn.attn.in_proj_{p}', 'attention.self.value.{p}'),
            ('attn.proj.{p}', 'attn.attn.out_proj.{p}', 'attention.output.dense.{p}'),
            ('attn.sr.{p}', 'attn.sr.{p}', 'attention.self.sequence_reduction.{p}'),
            ('attn.norm.{p}', 'attn.norm.{p}', 'attention.self.layer_norm.{p}'),
            ('norm2.{p}', 'norm2.{p}', 'layer_norm_2.{p}'),
            ('mlp.fc1.{p}', 'ffn.layers.0.{p}', 'mlp.dense1.{p}'),
            ('mlp.fc2.{p}', 'ffn.layers.3.{p}', 'mlp.dense2.{p}'),
        )
    ),
    classifier=(
        ('cls_token', None, 'pvt.encoder.patch_embeddings.{s}.cls_token'),  # of the last stage
        ('norm.{p}', None, 'pvt.encoder.layer_norm.{p}'),
        ('head.{p}', None, 'classifier.{p}'),
    ),
    signature=('pos_embed1', 'patch_embed1.proj.weight'),
)

_V2_STAGE = 'pvt_v2.encoder.layers.{s}'
PVT_V2 = Family(
    name='PVTv2',
    formats=FORMATS,
    stage=(
        (
            'patch_embed{S}.proj.{p}',
            'layers.{s}.0.projection.{p}',
            f'{_V2_STAGE}.patch_embedding.proj.{{p}}',
            '{embed}.proj.{p}',
        ),
        (
            'patch_embed{S}.norm.{p}',
            'layers.{s}.0.norm.{p}',
            f'{_V2_STAGE}.patch_embedding.layer_norm.{{p}}',
            '{embed}.norm.{p}',
        ),
        ('norm{S}.{p}', 'layers.{s}.2.{p}', f'{_V2_STAGE}.layer_norm.{{p}}', 'stages.{s}.norm.{p}'),
    ),
    layer=tuple(
        (
            f'block{{S}}.{{n}}.{ours}',
            f'layers.{{s}}.1.{{n}}.{mmdet}',
            f'{_V2_STAGE}.blocks.{{n}}.{huggingface}',
            f'stages.{{s}}.blocks.{{n}}.{timm}',
        )
        for ours, mmdet, huggingface, timm in (
            ('norm1.{p}', 'norm1.{p}', 'layer_norm_1.{p}', 'norm1.{p}'),
            ('attn.q.{p}', 'attn.attn.in_proj_{p}', 'attention.query.{p}', 'attn.q.{p}'),
            ('attn.kv.{p}', 'attn.attn.in_proj_{p}', 'attention.key.{p}', 'attn.kv.{p}'),
            ('attn.kv.{p}', 'attn.attn.in_proj_{p}', 'attention.value.{p}', 'attn.kv.{p}'),
            ('attn.proj.{p}', 'attn.attn.out_proj.{p}', 'attention.proj.{p}', 'attn.proj.{p}'),
            ('attn.sr.{p}', 'attn.sr.{p}', 'attention.spatial_reduction.{p}', 'attn.sr.{p}'),
            ('attn.norm.{p}', 'attn.norm.{p}', 'attention.layer_norm.{p}', 'attn.norm.{p}'),
            ('norm2.{p}', 'norm2.{p}', 'layer_norm_2.{p}', 'norm2.{p}'),
            ('mlp.fc1.{p}', 'ffn.layers.0.{p}', 'mlp.dense1.{p}', 'mlp.fc1.{p}'),
            ('mlp.dwconv.dwconv.{p}', 'ffn.layers.1.{p}', 'mlp.dwconv.dwconv.{p}', 'mlp.dwconv.{p}'),
            ('mlp.fc2.{p}', 'ffn.layers.4.{p}', 'mlp.dense2.{p}', 'mlp.fc2.{p}'),
        )
    ),
    classifier=(('head.{p}', None, 'classifier.{p}', 'head.{p}'),),
    signature=('patch_embed1.proj.weight', 'norm1.weight', 'block1.0.mlp.dwconv.dwconv.weight'),
)
FAMILIES = (PVT, PVT_V2)


def _fill(table: tuple[Row, ...], stage: int, layer: int = 0) -> list[Row]:
    """The rows of a table for one stage and layer, those of weights and of biases."""
    embed = f'stages.{stage}.downsample' if stage else 'patch_embed'
    fields = dict(s=stage, S=stage + 1, n=layer, N=layer + 1, embed=embed)
    rows = [tuple(name and name.format(**fields, p=p) for name in row) for row in table for p in ('weight', 'bias')]
    return list(dict.fromkeys(rows))  # what has no {p} came twice


def _rows(family: Family, keys: set[str], column: int) -> tuple[list[list[Row]], list[Row]]:
    """The rows of each stage and of the classifier, for as many stages and layers as ``keys`` have something of.

    Args:
        family: What the backbone is.
        keys: The keys of the backbone.
        column: The format that they are in.
    """
    stages = []
    while keys & {row[column] for row in _fill(family.stage, len(stages))}:
        rows = _fill(family.stage, len(stages))
        for layer in count():
            more = _fill(family.layer, len(stages), layer)
            if not keys & {row[column] for row in more}:
                break
            rows += more
        stages.append(rows)
    return stages, _fill(family.classifier, len(stages) - 1)


def _by_name(rows: list[Row], column: int) -> dict[str | None, list[Row]]:
    """The rows by their name in a format."""
    groups = {}
    for row in rows:
        groups.setdefault(row[column], []).append(row)
    return groups


def _full(key: str) -> str:
    """Hugging Face's key as in its classifiers, whose 'pvt.' or 'pvt_v2.' the backbone alone lacks; others as is."""
    if key.startswith('encoder.layers.'):
        return f'pvt_v2.{key}'
    return f'pvt.{key}' if key.startswith('encoder.') else key


_SIGNATURES = {(family, form): family.signature_in(form) for family in FAMILIES for form in family.formats}


def _fits(value: Tensor, group: list[Row]) -> bool:
    """Whether a tensor can be what its name says: the rows of ``group`` one after another."""
    num_dims = 3 if group[0][0].startswith('pos_embed') else value.ndim
    return value.numel() > 0 and value.ndim == num_dims > 0 and len(value) % len(group) == 0


def _has_class_row(parts: dict[Row, Tensor], stages: list[list[Row]]) -> bool:
    """Whether the last position embedding has one row more than its grid.

    Its grid follows from the one before, whose height and width are any two factors of its number of rows.
    """
    if len(stages) < 2 or not parts.keys() >= {stages[-2][0], *stages[-1][:2]}:
        return False
    before, position, projection = (parts[row] for row in (stages[-2][0], *stages[-1][:2]))
    num_tokens, patch_size = before.shape[1], projection.shape[-1]
    heights = [height for height in range(1, num_tokens + 1) if num_tokens % height == 0]
    return position.shape[1] - 1 in {
        (height // patch_size) * (num_tokens // height // patch_size) for height in heights
    }


def _is_linear(parts: dict[Row, Tensor]) -> bool:
    """Whether a PVTv2 averages keys and values: its reduction is a 1x1 convolution."""
    return any(row[0].endswith('.attn.sr.weight') and value.shape[2:] == (1, 1) for row, value in parts.items())


def _convert(
    family: Family, weights: dict[str, Tensor], source: str, target: str
) -> tuple[dict[str, Tensor], list[str]]:
    """The weights under the names of ``target``, and the keys of ``weights`` that have no place there."""
    if target not in family.formats:
        raise CheckpointError(f'{target} has no {family.name}: it can be converted to {", ".join(family.formats)}')
    given = {_full(key): value for key, value in weights.items()}
    before, after = family.formats.index(source), family.formats.index(target)
    stages, classifier = _rows(family, given.keys(), before)
    rows = [*chain(*stages), *classifier]

    parts = {}  # the tensor of each row
    for key, group in _by_name(rows, before).items():
        value = given.get(key)
        if value is None or not _fits(value, group):
            continue
        if source == 'mmdet' and '.mlp.fc' in group[0][0] and value.ndim == 4:
            value = value.flatten(1)  # a 1x1 convolution
        parts.update(zip(group, [value] if len(group) == 1 else [part.clone() for part in value.chunk(len(group))]))

    if target == 'mmdet' and family is PVT_V2 and _is_linear(parts):
        raise CheckpointError('mmdet has no PVTv2 with linear attention (b2_li): its port cannot hold these weights')
    lost = []
    position = stages[-1][0] if stages and family is PVT else None
    if source == 'mmdet' and position in parts:
        parts[position] = F.pad(parts[position], (0, 0, 1, 0))  # a class row of zeros, which a dense model does not use
    if target == 'mmdet' and position and _has_class_row(parts, stages):
        if parts[position][:, 0].any():
            lost.append(f'{position[before]}[:, 0]')
        parts[position] = parts[position][:, 1:]

    converted, used = {}, set()
    for key, group in _by_name(rows, after).items():
        if key is None or not parts.keys() >= set(group) or len({parts[row].shape for row in group}) > 1:
            continue
        value = torch.cat([parts[row] for row in group]) if len(group) > 1 else parts[group[0]]
        if target == 'mmdet' and '.mlp.fc' in group[0][0] and value.ndim == 2:
            value = value[:, :, None, None]  # a 1x1 convolution
        converted[key] = value
        used.update(row[before] for row in group)
    return converted, [key for key in weights if _full(key) not in used] + lost


def identify(keys: Iterable[str]) -> tuple[Family, str] | None:
    """What backbone ``keys`` name, and in which format.

    Args:
        keys: The keys of one backbone, without the prefix that it has in a detector.

    Returns:
        Its family and one of ``FORMATS``; None if they name neither a PVT nor a PVTv2.

    Raises:
        CheckpointError: Two formats fit.
    """
    keys = set(map(_full, keys))
    found = [names for names, signature in _SIGNATURES.items() if keys.issuperset(signature)]
    if len(found) > 1:
        families = ' and a '.join(dict.fromkeys(family.name for family, _ in found))
        raise CheckpointError(
            f'the weights name a {families} in two formats, {" and ".join(form for _, form in found)}: keep those of '
            'one of them in the file'
        )
    return found[0] if found else None


def format_of(keys: Iterable[str]) -> str | None:
    """The format in which ``keys`` name a PVT or a PVTv2, as :func:`identify`; None if they name neither."""
    found = identify(keys)
    return found and found[1]


def _unknown(keys: Iterable[str], holder: str) -> CheckpointError:
    """The error to raise where ``keys`` name no backbone."""
    first = ', '.join(list(keys)[:3])
    return CheckpointError(f'{holder} ({first}, ...) name no PVT or PVTv2 in a known format ({", ".join(FORMATS)})')


def to_published(weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The weights of one backbone under their published names.

    mmdet's last position embedding has no row for the class token: it gets one of zeros, which a dense model does not
    use. Position embeddings keep their grids.

    Args:
        weights: A backbone's weights in any of ``FORMATS``, without the prefix that it has in a detector.

    Returns:
        The weights by published name, and the keys that have no place there.

    Raises:
        CheckpointError: They are in no format, or in two.
    """
    found = identify(weights)
    if found is None:
        raise _unknown(weights, 'the weights')
    return _convert(found[0], weights, found[1], 'published')


def from_published(weights: dict[str, Tensor], to: str) -> tuple[dict[str, Tensor], list[str]]:
    """The weights of one backbone under the names of another format; the opposite of :func:`to_published`.

    Args:
        weights: The weights by published name.
        to: One of ``FORMATS``.

    Returns:
        The weights in that format, and the keys of ``weights`` that have no place there. mmdet's ports have no
        ``cls_token``, ``norm``, ``head``, nor the class token's row of the last position embedding
        (``pos_embed4[:, 0]``, named unless it is zero).

    Raises:
        CheckpointError: They do not have their published names, or the format has no such backbone: timm no PVT, mmdet
            no PVTv2 with linear attention.
    """
    found = identify(weights)
    if found is None or found[1] != 'published':
        raise _unknown(weights, 'the weights')
    return _convert(found[0], weights, 'published', to)


def find_backbones(keys: Iterable[str]) -> dict[str, str]:
    """The PVTs and PVTv2s in the keys of a whole file.

    Returns:
        The prefix of each ('' or 'backbone.', 'module.backbone.', ...) and its format.

    Raises:
        CheckpointError: Two formats fit one of them.
    """
    keys = list(keys)
    anchors = [signature[0] for signature in _SIGNATURES.values()]
    anchors += [
        anchor[anchor.index('encoder.') :] for anchor in anchors if 'encoder.' in anchor
    ]  # without a classifier
    backbones = {}
    for key in keys:
        for anchor in anchors:
            if key == anchor or key.endswith(f'.{anchor}'):
                prefix = key.removesuffix(anchor)
                if prefix not in backbones:
                    backbones[prefix] = format_of(_below(keys, prefix))
                break
    return {prefix: form for prefix, form in backbones.items() if form}


def _below(keys: Iterable[str], prefix: str) -> list[str]:
    """The keys that begin with ``prefix``, without it."""
    return [key.removeprefix(prefix) for key in keys if key.startswith(prefix)]


def convert_backbones(state_dict: dict[str, Tensor], to: str) -> tuple[dict[str, Tensor], list[str]]:
    """A whole file's weights with each of its PVTs in another format; necks and heads stay as they are.

    Args:
        state_dict: The weights of a backbone, detector or segmenter.
        to: One of ``FORMATS``. In those of ``ALONE`` a file holds one backbone and nothing else.

    Returns:
        The weights, with the ``_metadata`` of all modules whose names stay, and the keys that have no place among them.

    Raises:
        CheckpointError: The file holds no backbone, several for a format of ``ALONE``, or one that the format lacks.
    """
    backbones = find_backbones(state_dict)
    if not backbones:
        raise _unknown(state_dict, 'its weights')
    if to in ALONE and len(backbones) > 1:
        raise CheckpointError(f'it holds several PVTs, under {", ".join(backbones)}: {to} has place for one')
    converted, lost = OrderedDict(), []
    rest = dict(state_dict)
    metadata = dict(getattr(state_dict, '_metadata', {}))
    for prefix in sorted(backbones, reverse=True):  # 'a.b.' before 'a.'
        own = {key.removeprefix(prefix): rest.pop(key) for key in list(rest) if key.startswith(prefix)}
        family, form = identify(own)
        renamed, homeless = _convert(family, own, form, to)
        converted.update({('' if to in ALONE else prefix) + key: value for key, value in renamed.items()})
        lost += [prefix + key for key in homeless]
        module = prefix.removesuffix('.')  # its own entry stays: it tells the grids
        metadata = {name: entry for name, entry in metadata.items() if name == module or not name.startswith(prefix)}
    if to in ALONE:
        return converted, lost + list(rest)
    converted.update(rest)
    converted._metadata = metadata
    return converted, lost


_WRAPPERS = ('module.', '_orig_mod.', 'model.', 'ema_')


def strip_wrappers(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights without what wrappers put before their names.

    - ``module.`` (DDP, averaged models), ``_orig_mod.`` (torch.compile), ``model.`` and ``ema_`` are cut off, one after
      another, where all keys have them. Counters beside them (``n_averaged``, ``steps``) stay.
    - Copies of a moving average, ``ema_backbone_norm_weight`` or ``ema_backbone.norm.weight`` beside
      ``backbone.norm.weight``, are left out, with a line in the log. The keys without ``ema_`` are the ones to use:
      mmcv 1.x, which writes such copies, swaps the two before it saves, so that the plain keys hold the average.

    Args:
        state_dict: The weights of a whole file.

    Returns:
        The weights, in their order, with the ``_metadata`` of ``state_dict`` renamed alike, as far as it is sound.
    """
    weights = OrderedDict(state_dict)
    metadata = _sound_metadata(state_dict)
    while wrapper := next((wrapper for wrapper in _WRAPPERS if _is_wrapped(weights, wrapper)), None):
        weights = OrderedDict((key.removeprefix(wrapper), value) for key, value in weights.items())
        metadata = {f'{name}.'.removeprefix(wrapper).removesuffix('.'): entry for name, entry in metadata.items()}
    plain = {key.replace('.', '_') for key in weights}
    copies = [key for key in weights if key.startswith('ema_') and key.removeprefix('ema_').replace('.', '_') in plain]
    for key in copies:
        del weights[key]
    if copies:
        print_log(
            f'{len(copies)} copies of a moving average left out ({", ".join(copies[:3])}, ...): the keys without '
            'ema_ are used; mmcv 1.x saves the average under those',
            logger='current',
        )
    weights._metadata = metadata
    return weights


def _sound_metadata(state_dict: dict[str, Tensor]) -> dict[str, dict]:
    """The metadata of a state dict without what torch could not read: a file can hold anything there."""
    metadata = getattr(state_dict, '_metadata', {})
    return {
        name: {key: value for key, value in entry.items() if key != 'version' or isinstance(value, int)}
        for name, entry in (metadata.items() if isinstance(metadata, dict) else ())
        if isinstance(name, str) and isinstance(entry, dict)
    }


def _is_wrapped(weights: dict[str, Tensor], wrapper: str) -> bool:
    """Whether all keys begin with ``wrapper``, counters apart, and are different without it."""
    named = [key for key, value in weights.items() if '.' in key or value.numel() != 1]
    cut = {key.removeprefix(wrapper) for key in weights}
    return bool(named) and all(key.startswith(wrapper) for key in named) and len(cut) == len(weights)
