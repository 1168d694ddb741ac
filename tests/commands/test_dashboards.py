import pytest
from mmengine.config import Config
from mmengine.registry import VISBACKENDS

from pvt_mm.commands import checks, dashboards
from pvt_mm.errors import SettingError


def test_a_dashboard_comes_beside_what_the_config_has():
    for visualizer in ({}, dict(visualizer=dict(type='Visualizer', vis_backends=[dict(type='LocalVisBackend')]))):
        cfg = Config(dict(visualizer))
        dashboards.add_backend(cfg, 'tensorboard')
        assert [part.type for part in cfg.visualizer.vis_backends] == ['LocalVisBackend', 'TensorboardVisBackend']
    assert all(backend in VISBACKENDS for backend in dashboards.BACKENDS.values())


@pytest.mark.parametrize('name', dashboards.BACKENDS)
def test_a_missing_package_is_named_with_the_command(name, monkeypatch):
    monkeypatch.setattr(checks, 'find_spec', lambda name: None)
    cfg = Config({})
    dashboards.add_backend(cfg, name)
    with pytest.raises(SettingError, match=f'needs the package {name}: pip install {name}$'):
        checks.check_backends(cfg)
