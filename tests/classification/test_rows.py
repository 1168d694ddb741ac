"""What of Table 1 needs mmpretrain: whole models, their optimizers, and the published logits."""

from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper

from paper.rows import CONFIGS, Row, paper, recipe, table_rows
from pvt_mm.commands.checks import check_testing, check_training
from pvt_mm.commands.get_flops import build_model, count_multiply_adds, count_parameters
from pvt_mm.weights.loading import load_weights
from tests.parity import LOGITS, LOGITS_V2, formula_images, formula_weights, relative_error

ROWS = {row.key: row for table in paper()['tables'] for row in table_rows(table) if row.needs_mmpretrain}
COUNTED = {'classification/r101_300e': 44.5}  # the paper has 44.7, and torchvision's ResNet101 44.55 too


@pytest.fixture(params=ROWS)
def row(request) -> Row:
    return ROWS[request.param]


def load(name: str) -> Config:
    return Config.fromfile(CONFIGS / 'classification' / f'{name}.py')


def test_parameters_multiply_adds_and_what_decays(row):
    cfg, expected = row.load(), recipe(row)
    model = build_model(cfg)
    assert round(sum(count for _, count in count_parameters(model).values()) / 1e6, 1) == COUNTED.get(
        row.key, row.params
    )
    assert sum(count_multiply_adds(model, tuple(row.shape)).values()) / 1e9 == pytest.approx(row.gflops, abs=0.15)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    names = {id(p): name for name, p in model.named_parameters()}
    seen = []
    for group in wrapper.optimizer.param_groups:
        for parameter in group['params']:
            name = names[id(parameter)]
            spared = parameter.ndim == 1 or name.rpartition('.')[2] in expected['no_decay']
            assert group['weight_decay'] == (0 if spared else expected['weight_decay']), name
            assert group['lr'] == expected['lr']
            seen.append(name)
    assert sorted(seen) == sorted(names.values())


@pytest.mark.parametrize('config', list(CONFIGS.glob('classification/*.py')), ids=lambda path: path.stem)
def test_the_checks_before_a_run_have_nothing_to_say(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # without data
    monkeypatch.setattr('shutil.disk_usage', lambda place: SimpleNamespace(free=1e12))
    cfg, lines = Config.fromfile(config), []
    cfg.work_dir = str(tmp_path)
    check_training(cfg, padding=True, log=lines.append)
    check_testing(cfg)
    assert lines == []


@pytest.mark.parametrize(
    'name, published, size',
    [(f'pvt_{size}', LOGITS, size) for size in ('tiny', 'small', 'medium', 'large')]
    + [(f'pvt_v2_{size}', LOGITS_V2, size) for size in ('b0', 'b2_li')],
)
def test_published_weights_give_the_published_logits(name, published, size):
    """They are a backbone's own: in the classifier they stand below ``backbone.``."""
    cfg = load(f'{name}_300e')
    cfg.model.train_cfg = None
    model = build_model(cfg).to_empty(device='cpu')
    report = load_weights(model, formula_weights(model.backbone), 'the published weights', strict=True)
    assert report.clean and len(report.loaded) == len(model.state_dict())
    with torch.no_grad():
        logits = model(formula_images(2, 224, 224), mode='tensor')
    assert relative_error(logits, published[size]) < 5e-6
