"""What a config says of a backbone of ours, against what that takes and what stands around it in the model."""

import re
from collections.abc import Iterator

import torch
from mmengine.config import Config

from ..data.inputs import class_of, our_backbones
from ..data.names import some
from ..errors import SettingError
from ..models import ColumnarViT
from ..models.base import FROM_BASE, Backbone
from .options import BUILT, unknown_keys

ZOOS = re.compile('(open-?mmlab|modelzoo|torchvision|mmcls)://(?!.*pvt)')  # mmengine's addresses: none is of a PVT
# Necks of mmdet and mmseg that take every map of the backbone, in its order.
NECKS = (
    'ChannelMapper',
    'CSPNeXtPAFPN',
    'FPG',
    'FPN',
    'FPN_CARAFE',
    'FPN_DropBlock',
    'HRFPN',
    'JPU',
    'MLANeck',
    'MultiLevelNeck',
    'PAFPN',
    'SSH',
    'YOLOXPAFPN',
)
LAST_MAP = ('CTResNetNeck', 'DilatedEncoder')  # necks that take the last map alone
MASK_HEADS = ('MaskFormerHead', 'Mask2FormerHead')  # heads that take every map


def check_backbones(cfg: Config) -> None:
    """Looks for settings with which a model that holds a backbone of ours cannot be built, or not run.

    Raises:
        SettingError: A key is none of the backbone's, or a value out of its range; two settings name pretrained
            weights; or the ``in_channels`` of a neck or head of mmdet or mmseg are not those of the backbone's maps.
    """
    for path, holder, cls in our_backbones(cfg):
        settings = holder['backbone']
        if unknown := unknown_keys(settings, cls):
            raise SettingError(
                f'{path}.backbone: {cls.__name__} does not take {", ".join(unknown)}. If a base config sets what its '
                f"own backbone takes, drop that with backbone=dict(_delete_=True, type='{cls.__name__}', ...)"
            )
        if 'decode_head' in holder and None not in (holder.get('pretrained'), settings.get('pretrained')):
            raise SettingError(
                f'{path}.pretrained={holder["pretrained"]!r} and {path}.backbone.pretrained='
                f'{settings["pretrained"]!r} are both set, and mmseg takes one of them alone. As for the first, '
                f'{FROM_BASE}'
            )
        own = {key: value for key, value in settings.items() if key not in (*BUILT, 'pretrained', 'init_cfg')}
        try:
            with torch.device('meta'):
                backbone = cls(**own)
        except ValueError as error:
            raise SettingError(f'{path}.backbone: {error}') from error
        if backbone.num_classes is None and _name(cfg, holder):
            _check_channels(cfg, path, holder, _channels(backbone))


def check_base_pretrained(cfg: Config) -> None:
    """Raises SettingError where a model hands a backbone of ours the weights of another, which a base config names."""
    for path, holder, cls in our_backbones(cfg):
        address = holder.get('pretrained')
        if holder['backbone'].get('init_cfg') is None and isinstance(address, str) and ZOOS.match(address):
            raise SettingError(
                f"{path}.pretrained={address!r} is another backbone's, and the {cls.__name__} has no init_cfg, which "
                f'would be used in its place: {FROM_BASE}'
            )


def _channels(backbone: Backbone) -> list[int]:
    """The channels of each map that a backbone returns."""
    if isinstance(backbone, ColumnarViT):
        return [backbone.pos_embed.shape[2]] * len(backbone.out_strides)
    return [backbone.arch['embed_dims'][i] for i in backbone.out_indices]


def _check_channels(cfg: Config, path: str, holder: dict, channels: list[int]) -> None:
    for place, given, fitting in _receivers(cfg, path, holder, channels):
        if given != fitting:
            is_list = isinstance(given, list) and len(given) != len(fitting)
            other = f', or {path}.backbone.out_indices to the maps that are meant' if is_list else ''
            raise SettingError(
                f"{place}={_text(given)} does not fit the backbone's maps, which have {some(channels)} channels: "
                f'set {place}={_text(fitting)}{other}'
            )


def _receivers(cfg: Config, path: str, holder: dict, channels: list[int]) -> Iterator[tuple]:
    """Each setting of channels that meets the backbone's maps: its place, its value, and the value that fits them.

    Parts of which it is not certain what they do with the maps are left out.
    """
    necks = _listed(f'{path}.neck', holder.get('neck'))
    for place, part in necks[:1]:
        name, given, first = _name(cfg, part), part.get('in_channels'), part.get('start_level', 0)
        if name in LAST_MAP:
            yield f'{place}.in_channels', given, channels[-1]
        elif name in NECKS and part.get('end_level', -1) == -1 and isinstance(given, list | tuple):
            fits = len(given) == len(channels) and list(given[first:]) == channels[first:]  # the others are not used
            yield f'{place}.in_channels', list(given), list(given) if fits else channels
    if necks:
        return  # the heads take the neck's maps
    for key in ('rpn_head', 'bbox_head') if len(channels) == 1 else ():
        for place, part in _listed(f'{path}.{key}', holder.get(key)):
            if _name(cfg, part) and isinstance(part.get('in_channels'), int):
                yield f'{place}.in_channels', part['in_channels'], channels[0]
    for key in ('panoptic_head', 'decode_head', 'auxiliary_head'):
        for place, part in _listed(f'{path}.{key}', holder.get(key)):
            if _name(cfg, part) in MASK_HEADS:
                if len(part.get('in_channels', ())) >= len(channels):
                    yield f'{place}.in_channels', list(part['in_channels']), channels
            elif key != 'panoptic_head':
                yield from _selected(cfg, place, part, channels)


def _selected(cfg: Config, place: str, head: dict, channels: list[int]) -> Iterator[tuple]:
    """As :func:`_receivers`, of a head of mmseg, which takes the maps that its ``in_index`` names."""
    if 'kernel_generate_head' in head:  # KNet's first
        place, head = f'{place}.kernel_generate_head', head['kernel_generate_head']
    if not _name(cfg, head, 'BaseDecodeHead'):
        return
    given, index = head.get('in_channels'), head.get('in_index', -1)
    known = range(-len(channels), len(channels))
    for i in index if isinstance(index, list | tuple) else [index]:
        if i not in known:
            raise SettingError(
                f'{place}.in_index={index} names the map {i} of the {len(channels)} that the backbone returns: '
                "set it, or the backbone's out_indices"
            )
    if isinstance(index, int) and isinstance(given, int):
        yield f'{place}.in_channels', given, channels[index]
    elif isinstance(index, list | tuple) and isinstance(given, list | tuple):
        yield f'{place}.in_channels', list(given), [channels[i] for i in index]
    if head.get('c1_in_channels'):  # of DeepLabV3+, which takes the first map too
        yield f'{place}.c1_in_channels', head['c1_in_channels'], channels[0]


def _listed(place: str, parts: dict | list | None) -> list[tuple[str, dict]]:
    """One part or several, each with its place in the config."""
    if isinstance(parts, list | tuple):
        return [(f'{place}.{i}', part) for i, part in enumerate(parts)]
    return [(place, parts)] if parts else []


def _name(cfg: Config, part: dict, base: str | None = None) -> str:
    """The name of a part's class; '' where it is neither mmdet's nor mmseg's, or not derived from ``base``."""
    cls = class_of(cfg, part)
    if not isinstance(cls, type) or cls.__module__.partition('.')[0] not in ('mmdet', 'mmseg'):
        return ''
    return cls.__name__ if base is None or base in (parent.__name__ for parent in cls.__mro__) else ''


def _text(value: int | list[int]) -> str:
    """As ``--cfg-options`` takes it."""
    return str(value).replace(' ', '')
