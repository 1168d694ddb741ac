"""docs/own_data.md: its commands run as they stand there, on digits in each of its forms."""

import re
import shlex
from pathlib import Path

import cv2
import pytest
import torch

from pvt_mm import PVT
from pvt_mm.commands import main
from pvt_mm.models.archs import ARCHS
from tests.common import ALONE, ROOT, THIN
from tests.forms import FORMS, read_scenes

PAGE = (ROOT / 'docs/own_data.md').read_text()
SECTIONS = dict(re.findall(r'^##+ (.*?)\n(.*?)(?=^##|\Z)', PAGE, re.MULTILINE | re.DOTALL))
# The page's commands get these settings, which end soon.
QUICK = dict(train=(*ALONE, 'train_cfg.max_epochs=1', 'default_hooks.visualization.draw=False'), test=ALONE)


def commands(text: str) -> list[str]:
    return re.findall(r'^(pvt-mm .*)$', text, re.MULTILINE)


FIVE = commands(PAGE.split('\n## ')[0])[:5]
MAKE_SOME = commands(PAGE.split('\n## ')[0])[5:]
FORM_OF = {'COCO JSON': 'coco', 'Pascal VOC': 'voc', 'YOLO': 'yolo', 'LabelMe': 'labelme', 'PNG masks': 'masks'}


@pytest.fixture
def run(monkeypatch, tmp_path, capfd):
    """Runs a command of the page in this process; returns what it printed. 'pvt://small' is a small model's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    monkeypatch.setitem(ARCHS, 'small', THIN)
    (tmp_path / 'torch/hub/checkpoints').mkdir(parents=True)
    torch.manual_seed(0)
    torch.save(PVT('small').state_dict(), tmp_path / 'torch/hub/checkpoints/pvt_small.pth')

    def run(command: str) -> str:
        words = shlex.split(command)
        args = [str(path) for word in words for path in (sorted(Path().glob(word)) if '*' in word else [word])]
        if '--check' not in args and args[1] in QUICK:
            quick = QUICK[args[1]]
            if 'RetinaNet' in Path(args[2]).read_text():
                quick += ('model.test_cfg.score_thr=0.0',)  # after an epoch it is sure of nothing
            args += ['--cfg-options', *quick]
        monkeypatch.setattr('sys.argv', args)
        main()
        return ''.join(capfd.readouterr())

    return run


def test_the_page_has_five_commands_and_an_init_for_each_form():
    assert [command.split()[1] for command in FIVE] == ['init', 'train', 'train', 'test', 'predict']
    assert set(FORM_OF.values()) == set(FORMS)
    inits = [commands(SECTIONS[title]) for title in FORM_OF]
    assert all(len(found) == 1 and found[0].startswith('pvt-mm init data/boats') for found in inits)
    apart = commands(SECTIONS['Folders of classes'])  # tests/classification runs it
    assert len(commands(PAGE)) == len(FIVE) + len(MAKE_SOME) + len(inits) + len(apart)  # the others run below
    assert apart == ['pvt-mm init data/boats --task classification --out boats.py']


@pytest.mark.slow
@pytest.mark.parametrize('title', FORM_OF)
def test_five_commands_lead_from_a_folder_to_pictures(run, digits, title):
    scenes = read_scenes(digits)
    FORMS[FORM_OF[title]](Path('data/boats'), [*scenes[:6], *scenes[-2:]])
    Path('new').mkdir()
    Path('new/a.jpg').write_bytes(scenes[10].jpg)
    (init,) = commands(SECTIONS[title])
    printed = [run(command) for command in (init, *FIVE[1:])]
    assert ': 8 images, 1' in printed[0]
    assert 'Epoch(train) [1][2/2]' in printed[2] and 'pvt://small: 88 weights loaded' in printed[2]
    assert re.search(r'(bbox_mAP|segm_mAP|mIoU): ', printed[3])
    (picture,) = Path('pictures/vis').iterdir()
    assert cv2.imread(str(picture)).shape[:2] == scenes[10].size


def test_the_digits_are_made_and_recognised(run):
    printed = [run(command) for command in MAKE_SOME]
    assert 'COCO JSON: 80 images, 10 classes' in printed[-1]


def test_a_detector_of_other_classes_is_fine_tuned_and_the_layer_that_does_not_fit_is_named(run, digits):
    from mmengine.config import Config
    from mmengine.registry import MODELS, init_default_scope

    FORMS['coco'](Path('data/boats'), read_scenes(digits))
    run(FIVE[0])
    cfg = Config.fromfile('boats.py')
    cfg.model.bbox_head.num_classes = 80
    init_default_scope('mmdet')
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), 'zoo.pth')
    text = Path('boats.py').read_text()
    Path('boats.py').write_text(text.replace('\nload_from = None', "\nload_from = 'zoo.pth'"))
    printed = run(FIVE[2])
    named = re.search(r'\(`(bbox_head.retina_cls.weight .*?)`\)', SECTIONS['Fine-tune a trained detector'])[1]
    assert named in printed and 'loaded from pvt://small' not in printed
    assert 'Epoch(train) [1][4/4]' in printed
