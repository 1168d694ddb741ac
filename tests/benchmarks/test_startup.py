import json

import pytest


@pytest.mark.slow
def test_startup_times_both_tools_to_their_first_iteration(real_coco, tmp_path, tool):
    annotations = real_coco / 'annotations/instances_train2017.json'
    tool('benchmarks.startup', annotations, '--images', '300', '--runs', '1', '--out', tmp_path)
    runs = json.loads((tmp_path / 'startup_cpu_float32.json').read_text())['runs']
    for (run,) in runs.values():
        assert 0 < run['phases']['reading the annotations'] < run['seconds']
        assert len(run['worker_mib']) == 2 and min(run['worker_mib']) > 0
    assert runs.keys() == {'pvt_mm', "mmdet's"}
    assert (tmp_path / 'startup_cpu_float32.md').read_text().startswith('300 images, ')
