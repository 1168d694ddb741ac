import json

import pytest

from paper import cost
from paper.cost import measure
from paper.rows import table_rows

SMALL = dict(type='ColumnarViT', patch_size=16, img_size=64, embed_dims=32, num_heads=4)


@pytest.mark.slow
def test_a_measurement_grows_with_the_image():
    small, large = (measure(SMALL, 'mmdet', (side, side), runs=3) for side in (64, 1024))
    assert small['ms'] < large['ms'] and small['mib'] < large['mib']
    maps = sum(32 * (1024 // stride) ** 2 * 4 for stride in (4, 8, 16, 32)) / 2**20
    assert large['mib'] > maps  # the outputs alone


@pytest.fixture
def quick(monkeypatch):
    """Replaces the measuring by made-up figures: the tables and pictures are what is tested."""
    monkeypatch.setattr(cost, 'measure', lambda model, scope, shape: dict(ms=shape[0] / 10, mib=shape[1]))


def test_the_cost_study_sets_its_figures_beside_the_papers(quick, tmp_path):
    cost.measure_cost(tmp_path)
    table = (tmp_path / 'cost_time.md').read_text().splitlines()
    assert '| ResNet50 (r50_1x) | 800 | 239.3 / 238.5 | 55.9 / 80 | 36.3 / |' in table
    assert '| PVT-Small (pvt_small_640_1x) | 640 | 157.2 / 157.1 | 51.7 / 64 | 38.7 / |' in table
    assert json.loads((tmp_path / 'cost_time.json').read_text())['figures']['pvt_small_1x']['gflops'] == 285.7


def test_figure_5_counts_every_backbone_at_every_size(quick, tmp_path, monkeypatch):
    monkeypatch.setattr(cost, 'SIDES', (224, 448))
    cost.draw_fig5(tmp_path)
    figures = json.loads((tmp_path / 'fig5.json').read_text())['figures']
    assert set(figures) == {'PVT-Small', 'ResNet50', 'ViT-Small/16'}
    assert figures['PVT-Small']['224']['gflops'] == pytest.approx(3.8, abs=0.05)
    growth = {name: sides['448']['gflops'] / sides['224']['gflops'] for name, sides in figures.items()}
    assert growth['ResNet50'] == pytest.approx(4, abs=0.05)
    assert 4.2 < growth['PVT-Small'] < growth['ViT-Small/16']
    assert (tmp_path / 'fig5.png').stat().st_size > 10000


def test_ap_is_drawn_against_the_time_of_every_backbone(tmp_path, monkeypatch):
    rows = []

    def times(given):
        rows.extend(given)
        return {row.title: 100.0 + 10 * i for i, row in enumerate(given)}

    monkeypatch.setattr(cost, 'time_backbones', times)
    cost.draw_speed(tmp_path)
    figures = json.loads((tmp_path / 'speed.json').read_text())['figures']
    assert len(rows) == len(figures) == 9 + 7 and {row.family for row in rows} == {'PVT', 'PVTv2', 'ResNet', 'ResNeXt'}
    assert figures['ResNet50'] == dict(ap=36.3, ms=120.0, relative=1.0) and figures['PVTv2-B2-Li']['ap'] == 43.6
    assert (tmp_path / 'speed.png').stat().st_size > 10000


def test_backbones_are_timed_as_the_rows_have_them():
    rows = [row for row in table_rows('table2') if row.name in ('r18_1x', 'pvt_tiny_1x')]
    times = cost.time_backbones(rows, shape=(64, 96), runs=1)
    assert times.keys() == {'ResNet18', 'PVT-Tiny'} and min(times.values()) > 0
