"""What is looked at of classifiers: their training images, but not their attention, which is of a crop."""

import cv2

from pvt_mm.commands import attention, browse_data


def test_training_images_are_drawn_with_their_class(command, crops, tmp_path, capsys):
    flags = ('--data-root', crops, '--number', 3, '--out', tmp_path)
    assert command(browse_data, 'classification/pvt_nano_digits', *flags) is None
    assert '3 pictures' in capsys.readouterr().out
    pictures = sorted(tmp_path.glob('*.jpg'))
    assert len(pictures) == 3
    assert all(cv2.imread(str(path)).std() > 10 for path in pictures)


def test_attention_is_not_drawn_at_a_wrong_place(command, crops, tmp_path):
    image = next(crops.glob('val/3/*'))
    said = command(attention, 'classification/pvt_nano_digits', 'none.pth', image, '--point', '3,3', '--out', tmp_path)
    assert 'is of a classifier, which sees a crop of the image' in said
