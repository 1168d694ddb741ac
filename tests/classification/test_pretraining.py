import json

import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from benchmarks import pretraining
from tests.common import ALONE, ROOT


def test_a_detector_is_trained_from_random_weights_and_from_a_classifiers(command, digits, tmp_path):
    cfg = Config.fromfile(ROOT / 'configs/classification/pvt_nano_digits.py')
    init_default_scope('mmpretrain')
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), tmp_path / 'classifier.pth')
    options = ('--data-root', digits / 'coco', '--work-dir', tmp_path / 'runs', '--epochs', 1, '--out', tmp_path)
    settings = ('--cfg-options', *ALONE, 'model.test_cfg.score_thr=0.0')
    assert command(pretraining, tmp_path / 'classifier.pth', *options, *settings) is None
    (row,) = json.loads((tmp_path / 'pretraining_cpu_float32.json').read_text())['rows']
    assert row.keys() == {'epochs', 'random', 'pretrained'} and all(0 <= row[key] <= 100 for key in row)
    kept = (ROOT / 'benchmarks/results/pretraining_cpu_float32.md').read_text().split('\n\n')[0]
    assert kept in (ROOT / 'docs/classification.md').read_text()
    logs = {path.parts[-3]: path.read_text() for path in (tmp_path / 'runs').glob('*/*/*.log')}
    assert 'classifier.pth' in logs['pretrained_1e'] and 'classifier.pth' not in logs['random_1e']
