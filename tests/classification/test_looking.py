"""What is looked at of classifiers: their training images, but not their attention, which is of a crop."""

from pathlib import Path

import cv2
import numpy as np
from mmpretrain.visualization import UniversalVisualizer

from pvt_mm.commands import attention, browse_data


def test_training_images_are_drawn_with_their_class(command, crops, tmp_path, capsys, monkeypatch):
    given, draw = [], UniversalVisualizer.visualize_cls

    def visualize_cls(self, image, sample, **settings):
        given.append((image.copy(), sample, self.dataset_meta['classes'], settings.get('draw_gt', True)))
        return draw(self, image, sample, **settings)

    monkeypatch.setattr(UniversalVisualizer, 'visualize_cls', visualize_cls)
    flags = ('--data-root', crops, '--number', 3, '--out', tmp_path)
    assert command(browse_data, 'classification/pvt_nano_digits', *flags) is None
    assert '3 pictures' in capsys.readouterr().out
    pictures = sorted(tmp_path.glob('*.jpg'))
    assert len(pictures) == len(given) == 3
    for path, (image, sample, classes, is_drawn) in zip(pictures, given):
        assert is_drawn and classes[sample.gt_label] == Path(sample.img_path).parent.name
        assert np.abs(cv2.imread(str(path))[..., ::-1].astype(int) - image).max() > 100  # the class's text


def test_attention_is_not_drawn_at_a_wrong_place(command, crops, tmp_path):
    image = next(crops.glob('val/3/*'))
    said = command(attention, 'classification/pvt_nano_digits', 'none.pth', image, '--point', '3,3', '--out', tmp_path)
    assert 'is of a classifier, which sees a crop of the image' in said
