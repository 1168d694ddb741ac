"""The forms that people's own data come in, read into one structure: :class:`Data`."""

from .classes import read_classes
from .coco import read_coco
from .common import BESIDE, Data, Image
from .labelme import read_labelme
from .masks import read_masks
from .voc import read_voc
from .yolo import read_yolo

__all__ = ['BESIDE', 'READERS', 'Data', 'Image', 'read_classes', 'read_masks']

# Each reads the folder that it gets, or returns None where the folder has another form.
READERS = dict(coco=read_coco, voc=read_voc, yolo=read_yolo, labelme=read_labelme)
