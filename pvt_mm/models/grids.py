"""Which grids (height, width) the position embeddings of a state dict are for.

Our own state dicts tell them in their metadata. Elsewhere the number of positions is all there is: 9216 may be 96x96,
72x128 or 48x192.
"""

from typing import Any, NamedTuple

from .layers import Size


class Found(NamedTuple):
    """The grid of each embedding, in the order asked for, and why it was chosen."""

    grids: list[Size]
    reason: str = ''  # empty if it is no guess
    ambiguous: bool = False  # other grids have as many positions, and nothing tells them apart


def told_grids(told: Any, names: list[str], rows: list[int]) -> Found | None:
    """The grids in the metadata of a state dict, if they are ones and agree with the embeddings.

    Args:
        told: What stands under ``grids`` in the metadata, {name: (height, width)} or anything.
        names: The position embeddings.
        rows: The rows of each, with or without the class token's.
    """
    try:
        grids = [(int(told[name][0]), int(told[name][1])) for name in names]
    except (TypeError, KeyError, IndexError, ValueError, OverflowError):
        return None
    fits = all(h > 0 and w > 0 and number - h * w in (0, 1) for (h, w), number in zip(grids, rows))
    return Found(grids) if fits else None


def find_grids(
    rows: list[int], class_rows: list[int], strides: list[int], img_size: Size, square: bool
) -> Found | None:
    """Finds the grids of the position embeddings of a state dict that does not tell them.

    The embeddings of all stages belong to one image, so a grid counts only if the rows of every stage agree with it.

    Args:
        rows: The rows of each stage's embedding, the finest stage first.
        class_rows: How many of these are the class token's in the model that loads them; they may be lacking.
        strides: The stride of each stage in pixels.
        img_size: The image size (height, width) in pixels of the model that loads them.
        square: Whether they were surely learned on square images, as those of a published classifier.

    Returns:
        The first that fits of: square if ``square``, the model's own grids, its aspect ratio, square, the only grids
        possible. None if there are none, or several and no rule chooses.
    """
    for lacking in (0, 1):
        counts = [number - class_row * (1 - lacking) for number, class_row in zip(rows, class_rows)]
        found = _choose(counts, strides, img_size, square)
        if found is not None:
            return found
    return None


def _choose(counts: list[int], strides: list[int], img_size: Size, square: bool) -> Found | None:
    candidates = _candidates(counts, strides)
    squares = [grids for grids in candidates if grids[0][0] == grids[0][1]]
    own = [(img_size[0] // stride, img_size[1] // stride) for stride in strides]
    if square and squares:
        if own in candidates and own != squares[0]:
            return Found(squares[0], "square, as a classifier's are", True)
        return Found(squares[0])
    if own in candidates:
        return Found(own, "the model's own grids", own[0][0] != own[0][1])  # its transpose fits too
    # An image of the model's aspect ratio may have had sides that are no multiples of the stride.
    ratio = img_size[0] / img_size[1]
    alike = [grids for grids in candidates if grids[0][0] / (grids[0][1] + 1) < ratio < (grids[0][0] + 1) / grids[0][1]]
    alike.sort(key=lambda grids: abs(grids[0][0] / grids[0][1] / ratio - 1))
    for found, reason in ((alike, "the model's aspect ratio"), (squares, 'square')):
        if found:
            return Found(found[0], reason, len(candidates) > 1)
    return Found(candidates[0], 'the only ones possible') if len(candidates) == 1 else None


def _candidates(counts: list[int], strides: list[int]) -> list[list[Size]]:
    """All grids with these numbers of positions that belong to one image."""
    found = []
    for height in range(1, counts[0] + 1):
        if counts[0] % height == 0:
            width = counts[0] // height
            ratios = [stride // strides[0] for stride in strides]
            grids = [(height // ratio, width // ratio) for ratio in ratios]
            if [h * w for h, w in grids] == counts:
                found.append(grids)
    return found
