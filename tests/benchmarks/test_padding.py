import json

import cv2
import pytest
import torch
from torch import nn

from benchmarks.padding import SIDE, compare, join_scenes, mass_on_padding, moved_positions
from pvt_mm import PVT
from tests.common import NANO


@pytest.fixture
def pvt() -> PVT:
    torch.manual_seed(0)
    return PVT(NANO, img_size=96).eval()


@pytest.fixture
def images() -> list[torch.Tensor]:
    return [torch.randn(3, 64, 64), torch.randn(3, 64, 192)]


@torch.no_grad()
def test_keys_that_are_all_alike_get_attention_by_their_number(pvt, images):
    for i in range(4):
        nn.init.zeros_(pvt.stage(i).blocks[0].attn.kv.weight)
    assert mass_on_padding(pvt, images) == pytest.approx([2 / 3] * 4)


@torch.no_grad()
def test_each_part_alone_leaves_a_difference_and_both_leave_none(pvt, images):
    found = compare(pvt, images)
    assert min(found['nothing'] + found['masked keys'] + found['own positions']) > 1e-4 > 100 * max(found['both'])


@torch.no_grad()
def test_positions_move_with_the_size_of_the_batch(pvt, images):
    assert moved_positions(pvt, images[:1]) == [0] * 4
    assert min(moved_positions(pvt, images)) > 0.1


def test_joined_scenes_keep_their_boxes_on_the_digits(digits, tmp_path):
    join_scenes(digits / 'coco', tmp_path)
    squares, joined = (
        json.loads((root / 'annotations/instances_val2017.json').read_text()) for root in (digits / 'coco', tmp_path)
    )
    assert [(i['height'], i['width']) for i in joined['images']] == [(2 * SIDE, SIDE), (SIDE, 2 * SIDE)] * 2
    assert len(joined['annotations']) == len(squares['annotations'])
    files = {image['id']: image['file_name'] for image in joined['images']}
    sources = {image['id']: image['file_name'] for image in squares['images']}
    for ours, theirs in zip(joined['annotations'], squares['annotations'], strict=True):
        crops = []
        for root, file, (x, y, width, height) in (
            (tmp_path, files[ours['image_id']], map(int, ours['bbox'])),
            (digits / 'coco', sources[theirs['image_id']], map(int, theirs['bbox'])),
        ):
            crops.append(cv2.imread(str(root / 'val2017' / file))[y : y + height, x : x + width].astype(float))
        assert abs(crops[0] - crops[1]).mean() < 5  # JPEG wrote it twice
