import os
import pickle
import subprocess
import sys
import warnings
import zipfile
from argparse import Namespace
from pathlib import Path
from textwrap import indent

import mmengine.runner.checkpoint
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mmengine.logging import HistoryBuffer
from mmengine.runner import load_checkpoint
from safetensors.torch import save_file
from torch import nn

from pvt_mm.errors import CheckpointError
from pvt_mm.weights import reading
from pvt_mm.weights.published import PUBLISHED
from pvt_mm.weights.reading import cached_file, check_weights, force_weights_only, read_checkpoint

WEIGHTS = {'conv.weight': torch.arange(12.0).reshape(3, 4), 'norm.num_batches_tracked': torch.tensor(3)}


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch) -> Path:
    """An empty cache of torch.hub's in place of the user's."""
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    (tmp_path / 'hub' / 'checkpoints').mkdir(parents=True)
    return tmp_path / 'hub' / 'checkpoints'


def fault(source, match: str) -> str:
    """The one line that reading ``source`` ends in."""
    with warnings.catch_warnings(record=True, action='always') as warned:
        with pytest.raises(CheckpointError, match=match) as error:
            read_checkpoint(str(source))
    assert not warned and '\n' not in str(error.value) and str(source) in str(error.value)
    assert 'weights_only' not in str(error.value)  # torch's advice: to switch the safety off
    return str(error.value)


def put(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def saved(path: Path, content, **kwargs) -> Path:
    torch.save(content, path, **kwargs)
    return path


# What is no checkpoint


@pytest.mark.parametrize(
    'content, match',
    [
        (b'', 'it is empty'),
        (b'<!DOCTYPE html><html>Not Found</html>', 'it is a web page: download the file itself'),
        (
            b'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n',
            'a git-LFS pointer: run git lfs pull',
        ),
        (pickle.dumps(dict(a=1)), 'it is a plain pickle, .*: save its state dict with torch.save'),
        (pickle.dumps(dict(a=1), protocol=2), 'it is a plain pickle, .*: save its state dict with torch.save'),
        (b'weights', 'it is cut off, damaged or no checkpoint'),
    ],
)
@pytest.mark.parametrize('suffix', ['pth', 'bin', 'safetensors'])
def test_what_is_no_checkpoint_is_called_by_its_name(tmp_path, content, match, suffix):
    fault(put(tmp_path / f'a.{suffix}', content), match)


def test_a_missing_file_and_an_empty_folder_are_named(tmp_path):
    fault(tmp_path / 'nowhere.pth', 'nowhere.pth does not exist')
    fault(tmp_path, 'is a folder without model.safetensors or pytorch_model.bin: name a file')


def test_a_torchscript_file_is_not_run(tmp_path):
    torch.jit.script(nn.Linear(1, 1)).save(tmp_path / 'a.pt')
    fault(tmp_path / 'a.pt', 'is a TorchScript program and was not loaded: save its state dict')


@pytest.mark.parametrize('legacy', [False, True])
def test_a_file_that_is_cut_off_is_damaged(tmp_path, legacy):
    whole = saved(tmp_path / 'a.pth', WEIGHTS, _use_new_zipfile_serialization=not legacy).read_bytes()
    for length in (20, len(whole) // 2, len(whole) - 1):
        fault(put(tmp_path / 'a.pth', whole[:length]), 'it is cut off, damaged or no checkpoint')


def test_a_flipped_byte_among_the_weights_is_damage(tmp_path):
    """torch.load takes it: it does not compare checksums."""
    whole = bytearray(saved(tmp_path / 'a.pth', WEIGHTS).read_bytes())
    whole[whole.index(WEIGHTS['conv.weight'].numpy().tobytes()) + 7] ^= 1
    put(tmp_path / 'a.pth', whole)
    assert torch.load(tmp_path / 'a.pth', weights_only=True)['conv.weight'][0, 1] != 1
    fault(tmp_path / 'a.pth', 'damaged .*data/0 has another checksum')


def test_a_file_that_was_saved_without_checksums_loads(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        saved(tmp_path / 'a.pth', WEIGHTS)
    finally:
        torch.serialization.set_crc32_options(True)
    assert read_checkpoint(str(tmp_path / 'a.pth'))['conv.weight'][0, 1] == 1


@pytest.mark.parametrize(
    'content, match',
    [
        ([1, 2], 'holds a list, not a state dict'),
        (dict(meta=[1], state_dict=WEIGHTS), 'its meta is a list, not a dict'),
    ],
)
def test_what_holds_no_checkpoint_says_what_it_holds(tmp_path, content, match):
    fault(saved(tmp_path / 'a.pth', content), match)


# What holds a program


class Touch:
    """Pickled, it makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


class Reduced:
    """Pickled, it calls ``function(*args)`` when it is unpickled."""

    def __init__(self, function, *args):
        self.reduced = function, args

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize('forced', ['', '1'])
@pytest.mark.parametrize('scheme', ['file', 'http', 'torchvision', 'pvt'])
def test_a_program_in_a_checkpoint_does_not_run_whatever_the_environment_says(
    tmp_path, hub, scheme, forced, monkeypatch
):
    monkeypatch.setenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', forced)
    monkeypatch.delenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', raising=False)
    path = saved(hub / 'pvt_tiny.pth', dict(state_dict=dict(a=Touch(tmp_path / 'ran'))))
    url = 'http://localhost/pvt_tiny.pth'
    monkeypatch.setattr(mmengine.runner.checkpoint, 'get_torchvision_models', lambda: {'evil': url})
    source = {'file': path, 'http': url, 'torchvision': 'torchvision://evil', 'pvt': 'pvt://tiny'}[scheme]
    fault(source, 'holds more than data and was not loaded: (io.)?open; save its state dict alone')
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize('protocol', [0, 2, 4])
def test_a_plain_pickle_does_not_run(tmp_path, protocol):
    path = put(tmp_path / 'a.pth', pickle.dumps(Touch(tmp_path / 'ran'), protocol=protocol))
    fault(path, 'a plain pickle|holds more than data|damaged')
    assert not (tmp_path / 'ran').exists()


@pytest.mark.parametrize(
    'args',
    [
        (HistoryBuffer, '__init__'),
        (HistoryBuffer, 'update'),
        (HistoryBuffer.min, '__globals__'),
        (np.ndarray, 'tofile'),
    ],
)
def test_getattr_in_a_checkpoint_reaches_a_history_buffers_statistics_only(tmp_path, args):
    fault(saved(tmp_path / 'a.pth', dict(a=Reduced(getattr, *args))), 'holds more than data .*: builtins.getattr')


def test_a_checkpoint_does_not_change_what_logs_call_their_mean(tmp_path, monkeypatch):
    buffer = HistoryBuffer([1.0, 2.0], [1, 1])
    monkeypatch.setattr(HistoryBuffer, '_statistics_methods', dict(mean=HistoryBuffer.min))
    saved(tmp_path / 'a.pth', dict(log=buffer))
    monkeypatch.undo()
    loaded = torch.load(tmp_path / 'a.pth', weights_only=True)['log']
    assert loaded.statistics('mean') == HistoryBuffer([1.0, 2.0], [1, 1]).statistics('mean') == 1.5


def test_objects_in_an_array_do_not_run(tmp_path):
    array = np.array([Touch(tmp_path / 'ran')], dtype=object)
    fault(saved(tmp_path / 'a.pth', dict(a=array)), 'holds more than data')
    assert not (tmp_path / 'ran').exists()


# What mmengine and others save


def test_what_mmengine_saves_loads_as_data_and_is_saved_again_as_mmengines(tmp_path):
    buffer = HistoryBuffer([1.0, 2.0], [1, 1])
    path = saved(tmp_path / 'a.pth', dict(message_hub=dict(log_scalars={'train/loss': buffer})))
    for _ in range(2):
        checkpoint = read_checkpoint(str(path))
        loaded = checkpoint['message_hub']['log_scalars']['train/loss']
        assert type(loaded) is HistoryBuffer
        assert loaded.mean() == 1.5 and loaded.statistics('max') == 2
        saved(path, checkpoint)


def test_other_libraries_that_take_back_what_may_be_read_do_not_matter(tmp_path):
    """onedl-mmengine does, after each checkpoint that it loads."""
    torch.save(dict(state_dict={}, array=np.arange(3)), tmp_path / 'a.pth')
    with torch.serialization.safe_globals([np.ndarray, np.dtype]):
        pass
    assert read_checkpoint(str(tmp_path / 'a.pth'))['array'].tolist() == [0, 1, 2]


@pytest.mark.parametrize('core', ['numpy._core', 'numpy.core'])  # numpy 2's name and numpy 1's
@pytest.mark.parametrize('code', '?' + np.typecodes['AllInteger'] + np.typecodes['AllFloat'])
def test_numbers_of_every_dtype_are_data(tmp_path, code, core):
    value = np.ones(2, dtype=code)
    path = saved(tmp_path / 'a.pth', dict(array=value, scalar=value[0]), pickle_protocol=2)
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(tmp_path / 'b.pth', 'w') as renamed:
        for member in archive.infolist():
            content = archive.read(member)
            if member.filename.endswith('.pkl'):
                assert b'numpy._core' in content
            renamed.writestr(member, content.replace(b'numpy._core', core.encode()))
    loaded = read_checkpoint(str(tmp_path / 'b.pth'))
    assert loaded['array'].dtype == loaded['scalar'].dtype == value.dtype
    assert (loaded['array'] == value).all() and loaded['scalar'] == value[0]


def test_the_arguments_of_a_training_script_are_data(tmp_path):
    assert read_checkpoint(str(saved(tmp_path / 'a.pth', dict(args=Namespace(lr=1e-3)))))['args'].lr == 1e-3


def test_old_files_of_torch_load(tmp_path):
    path = saved(tmp_path / 'a.pth', WEIGHTS, _use_new_zipfile_serialization=False)
    assert torch.equal(read_checkpoint(str(path))['conv.weight'], WEIGHTS['conv.weight'])


def test_importing_the_package_replaces_no_function_and_takes_no_generic_name():
    code = """
import sys
import mmengine, mmengine.hooks, mmengine.model, mmengine.registry, mmengine.runner, torch
from mmengine.registry import Registry, root
from mmengine.runner import CheckpointLoader
import mmdet.models, mmseg.models

def functions():
    found = {}
    for name, module in list(sys.modules.items()):
        if name.split('.')[0] in ('mmengine', 'mmdet', 'mmseg', 'torch', 'mmcv'):
            for key, value in list(vars(module).items()):
                if callable(value):
                    found[name, key] = value
                    if isinstance(value, type) and not name.startswith('torch'):
                        found.update({(name, key, k): v for k, v in vars(value).items() if callable(v)})
    return found

def names():
    return {r: set(r.module_dict) for r in vars(root).values() if isinstance(r, Registry)}

before, taken, schemes = functions(), names(), set(CheckpointLoader._schemes)
defaults = torch.get_default_dtype(), torch.get_num_threads()
import pvt_mm
after = functions()
assert [key for key in before if before[key] is not after[key]] == []
assert defaults == (torch.get_default_dtype(), torch.get_num_threads())
added = set().union(*(new - taken[registry] for registry, new in names().items()))
ours = {'PVT', 'PVTv2', 'ColumnarViT', 'Trans2SegHead', 'PVTRunner', 'PVTBadDataHook', 'PVTReportHook', 'PVTMistakes'}
ours |= {'PVTDeepLabV3PlusHead', 'PVTCheckpointHook', 'PVTStopHook', 'PVTExactBatchSampler'}
ours |= {'PVTLayerDecayConstructor', 'PVTLogits', 'PVTNonFiniteHook', 'PVTEpochBasedTrainLoop', 'PVTIterBasedTrainLoop'}
assert {'PVT', 'PVTRunner'} <= added <= ours, added
assert set(CheckpointLoader._schemes) - schemes == {'pvt://'}
"""
    subprocess.run([sys.executable, '-W', 'ignore', '-c', code], check=True)


def test_importing_the_package_imports_no_library_of_models_and_leaves_torchs_environment():
    code = (
        'import os, sys; import pvt_mm; assert not [key for key in os.environ if key.startswith("TORCH_FORCE")]; '
        'assert not {"mmdet", "mmseg", "matplotlib", "sklearn"} & set(sys.modules)'
    )
    subprocess.run([sys.executable, '-W', 'ignore', '-c', code], check=True)


# In our commands


def run_command(code: str, **env: str) -> subprocess.CompletedProcess:
    """Runs the body ``code`` as a command of ours, inside ``one_line_errors``."""
    command = 'from pvt_mm.commands.launch import one_line_errors\n@one_line_errors\ndef main():\n{}\nmain()'
    return subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', command.format(indent(code, '    '))],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
    )


def test_in_a_command_every_models_files_are_data(tmp_path, hub):
    path = saved(hub / 'a.pth', dict(a=Touch(tmp_path / 'ran')))
    code = f"""
import pickle
import torch
from mmdet.models import ResNet
from mmengine.runner import CheckpointLoader

url = 'http://localhost/a.pth'
for load in (
    lambda: torch.load({str(path)!r}, weights_only=False),
    lambda: torch.hub.load_state_dict_from_url(url),
    lambda: CheckpointLoader.load_checkpoint(url),
    lambda: CheckpointLoader.load_checkpoint({str(path)!r}),
    ResNet(18, init_cfg=dict(type='Pretrained', checkpoint=url)).init_weights,
):
    try:
        load()
    except pickle.UnpicklingError:
        print('refused')
"""
    done = run_command(code, TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD='1', TORCH_HOME=str(hub.parents[1]))
    assert not (tmp_path / 'ran').exists() and done.stdout.count('refused') == 5, done.stderr
    assert (done.stdout + done.stderr).count('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD is ignored') == 1


def test_a_command_says_nothing_where_the_environment_asks_for_nothing(monkeypatch, capfd):
    monkeypatch.setenv('TORCH_FORCE_WEIGHTS_ONLY_LOAD', '0')
    monkeypatch.delenv('TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD', raising=False)
    force_weights_only()
    assert os.environ['TORCH_FORCE_WEIGHTS_ONLY_LOAD'] == '1' and not ''.join(capfd.readouterr())


# Weights from elsewhere


def test_safetensors_load_from_a_file_and_from_a_folder(tmp_path):
    save_file(WEIGHTS, tmp_path / 'model.safetensors')
    for source in (tmp_path / 'model.safetensors', tmp_path):
        assert torch.equal(read_checkpoint(str(source))['conv.weight'], WEIGHTS['conv.weight'])
    (tmp_path / 'model.safetensors').unlink()
    saved(tmp_path / 'pytorch_model.bin', WEIGHTS)
    assert torch.equal(read_checkpoint(str(tmp_path))['conv.weight'], WEIGHTS['conv.weight'])


def test_safetensors_that_are_damaged_are_named(tmp_path):
    save_file(WEIGHTS, tmp_path / 'a.safetensors')
    fault(put(tmp_path / 'b.safetensors', (tmp_path / 'a.safetensors').read_bytes()[:-3]), 'damaged or no checkpoint')


def test_an_extra_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'huggingface_hub', None)
    fault('hf://owner/pvt', 'needs huggingface_hub and safetensors: pip install')
    save_file(WEIGHTS, tmp_path / 'a.safetensors')
    monkeypatch.setitem(sys.modules, 'safetensors.torch', None)
    fault(tmp_path / 'a.safetensors', 'needs safetensors: pip install safetensors')


@pytest.fixture
def hugging_face(tmp_path, monkeypatch) -> Path:
    """The folder of ``hf://owner/pvt`` in a cache of huggingface_hub's, which is offline."""
    constants = pytest.importorskip('huggingface_hub').constants
    monkeypatch.setattr(constants, 'HF_HUB_OFFLINE', True)
    monkeypatch.setattr(constants, 'HF_HUB_CACHE', str(tmp_path / 'hf'))
    repo, commit = tmp_path / 'hf' / 'models--owner--pvt', 'c' * 40
    (repo / 'refs').mkdir(parents=True)
    (repo / 'refs' / 'main').write_text(commit)
    (repo / 'snapshots' / commit).mkdir(parents=True)
    return repo / 'snapshots' / commit


def test_hugging_faces_cache_is_used_offline(hugging_face):
    saved(hugging_face / 'pytorch_model.bin', dict(a=torch.ones(1)))
    assert read_checkpoint('hf://owner/pvt')['a'] == 1
    save_file(dict(a=torch.zeros(1)), hugging_face / 'model.safetensors')
    assert read_checkpoint('hf://owner/pvt')['a'] == 0
    assert read_checkpoint('hf://owner/pvt/pytorch_model.bin')['a'] == 1


@pytest.mark.parametrize('source', ['hf://owner/pvt', 'hf://owner/pvt/other.bin', 'hf://nobody/nothing', 'hf://a'])
def test_what_hugging_faces_cache_lacks_is_named_offline(hugging_face, source):
    fault(source, f'{source} cannot be fetched .* needs a network once')


def test_published_weights_have_names(hub):
    for number, (name, url) in enumerate(PUBLISHED.items()):
        assert url == f'https://github.com/whai362/PVT/releases/download/v2/pvt_{name}.pth'
        saved(hub / f'pvt_{name}.pth', dict(weight=torch.full((1, 1), float(number)), bias=torch.zeros(1)))
        assert read_checkpoint(f'pvt://{name}')['weight'] == number
        model = nn.Linear(1, 1)
        load_checkpoint(model, f'pvt://{name}')  # mmengine's
        assert model.weight == number
    fault(
        'pvt://huge', 'pvt://huge is not among the published ones: pvt://tiny, pvt://small, pvt://medium, pvt://large'
    )


def test_mmengines_names_are_resolved(hub, monkeypatch, tmp_path):
    monkeypatch.setenv('MMENGINE_HOME', str(tmp_path / 'home'))
    names = mmengine.runner.checkpoint
    monkeypatch.setattr(names, 'get_torchvision_models', lambda: {'r': 'https://somewhere/vision.pth'})
    monkeypatch.setattr(names, 'get_external_models', lambda: {'r': 'https://somewhere/lab.pth', 'own': 'own.pth'})
    monkeypatch.setattr(names, 'get_deprecated_model_names', lambda: {'old': 'r'})
    monkeypatch.setattr(names, 'get_mmcls_models', lambda: {'r': 'https://somewhere/cls.pth'})
    for place in (hub / 'vision.pth', hub / 'lab.pth', hub / 'cls.pth', tmp_path / 'home' / 'own.pth'):
        place.parent.mkdir(exist_ok=True)
        saved(place, {'backbone.place': place.stem, 'head.place': place.stem})
    for source, place in {
        'torchvision://r': 'vision',
        'modelzoo://r': 'vision',
        'open-mmlab://r': 'lab',
        'openmmlab://old': 'lab',
        'open-mmlab://own': 'own',
    }.items():
        assert read_checkpoint(source)['backbone.place'] == place
    assert read_checkpoint('mmcls://r') == dict(
        state_dict=dict(place='cls')
    )  # the backbone's part, as mmengine takes it
    fault('open-mmlab://nothing', 'cannot be resolved .KeyError.*: give a file or an https address')
    fault('ftp://somewhere/a.pth', 'cannot be resolved .unknown scheme ftp://.: give a file or an https address')


def test_torchvisions_names_need_torchvision(monkeypatch):
    monkeypatch.setitem(sys.modules, 'torchvision', None)
    fault('torchvision://resnet50', 'cannot be resolved .ModuleNotFoundError')


def test_offline_an_address_ends_in_one_line_that_says_where_to_put_the_file(hub):
    url = 'http://127.0.0.1:9/pvt_small.pth'  # the discard port: nobody answers
    message = fault(url + '?download=true', 'cannot be fetched .*download it on a machine with a network')
    assert message.endswith(f'put it at {hub}/pvt_small.pth')
    saved(hub / 'pvt_small.pth', dict(a=torch.ones(1)))
    assert cached_file(url) == str(hub / 'pvt_small.pth')
    assert read_checkpoint(url)['a'] == 1
    fault('http://127.0.0.1:9/', 'cannot be fetched .it names no file')


def test_a_file_is_fetched_once(hub, monkeypatch):
    fetched = []
    monkeypatch.setattr(torch.hub, 'download_url_to_file', lambda url, path: fetched.append(saved(Path(path), WEIGHTS)))
    for _ in range(2):
        assert read_checkpoint('https://somewhere/a.pth').keys() == WEIGHTS.keys()
    assert fetched == [hub / 'a.pth']


@pytest.mark.parametrize('is_first', [True, False])
def test_the_first_process_fetches_for_all_and_lets_them_go_on_where_it_cannot(monkeypatch, is_first):
    done = []

    def download(url, path):
        done.append('fetch')
        raise OSError('no network')

    monkeypatch.setattr(torch.hub, 'download_url_to_file', download)
    monkeypatch.setattr(reading, 'is_main_process', lambda: is_first)
    monkeypatch.setattr(reading, 'barrier', lambda: done.append('barrier'))
    fault('https://somewhere/a.pth', 'cannot be fetched .no network.')
    assert done == (['fetch', 'barrier'] if is_first else ['barrier', 'fetch'])


def test_a_damaged_download_says_what_to_remove(hub):
    (hub / 'a.pth').write_text('<html>')
    fault('http://127.0.0.1:9/a.pth', f'it is a web page: .*; remove {hub}/a.pth to fetch it again')


# What the weights are


def test_weights_pass():
    check_weights(
        {
            **WEIGHTS,
            'half': torch.ones(2, dtype=torch.bfloat16),
            'mask': torch.ones(2, dtype=torch.bool),
            'scale': nn.Parameter(torch.tensor(1.0)),
            'strided': torch.ones(4, 4)[::2],
            'empty': torch.ones(0),
        },
        'a.pth',
    )


@pytest.mark.parametrize(
    'value, match',
    [
        ([1.0], "a.pth holds what is no weight: 'odd' is a list, not a tensor"),
        (np.ones(2), "'odd' is a ndarray, not a tensor"),
        (torch.ones(2, 2).to_sparse(), "'odd' is a sparse or nested tensor .torch.sparse_coo."),
        (torch.ones(2, 2).to_sparse_csr(), "'odd' is a sparse or nested tensor .torch.sparse_csr."),
        (torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8), "'odd' is a tensor of torch.qint8"),
        (torch.ones(2, dtype=torch.complex64), "'odd' is a tensor of torch.complex64"),
        (torch.nested.nested_tensor([torch.ones(1), torch.ones(2)]), "'odd' is a sparse or nested tensor"),
        (torch.ones(1).expand(2**30, 2**30), "'odd' is .1073741824, 1073741824. values spread from fewer"),
        (torch.ones(2, device='meta'), "'odd' is a meta tensor, without data"),
        (
            torch.tensor([1.0, float('nan')]),
            r"a.pth holds NaN or infinite weights: 'odd' \(1 of 2 values\); take an earlier",
        ),
        (torch.tensor(float('-inf')), r"NaN or infinite weights: 'odd' \(1 of 1 values\);"),
    ],
)
@pytest.mark.filterwarnings('ignore')  # torch's: Sparse CSR is beta, quantisation goes
def test_what_cannot_be_a_weight_is_named(value, match):
    with pytest.raises(CheckpointError, match=match):
        check_weights({**WEIGHTS, 'odd': value}, 'a.pth')


def test_a_key_that_is_no_name_is_shown_and_five_faults_stand_for_all():
    with pytest.raises(CheckpointError, match=r'the key 3 is a int, not a name'):
        check_weights({3: torch.ones(1)}, 'a.pth')
    with pytest.raises(CheckpointError, match=r"weight: 'a\\nb' is a int"):
        check_weights({'a\nb': 1}, 'a.pth')
    with pytest.raises(CheckpointError, match=r"weights: 'w0' \(.*\), 'w1' .*, 'w4' \(1 of 1 values\) and 3 more;"):
        check_weights({f'w{i}': torch.tensor([float('inf')]) for i in range(8)}, 'a.pth')


# Anything at all


@pytest.fixture(scope='module')
def originals(tmp_path_factory) -> dict[str, bytes]:
    """Real checkpoints, one of each format."""
    folder = tmp_path_factory.mktemp('originals')
    run = dict(
        meta=dict(epoch=1, iter=4, seed=np.int64(0)),
        state_dict=nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).state_dict(),
        message_hub=dict(log_scalars={'loss': HistoryBuffer([1.0], [1])}, runtime_info=dict(best_score=np.float32(1))),
    )
    saved(folder / 'run.pth', run)
    saved(folder / 'old.pth', run, _use_new_zipfile_serialization=False)
    save_file(run['state_dict'], folder / 'a.safetensors')
    return {path.name: path.read_bytes() for path in folder.iterdir()}


MUTATIONS = st.lists(
    st.tuples(st.sampled_from(['flip', 'cut', 'insert', 'copy']), st.floats(0, 1), st.binary(min_size=1, max_size=4)),
    min_size=1,
    max_size=4,
)


def mutate(content: bytes, mutations: list) -> bytes:
    content = bytearray(content)
    for kind, where, data in mutations:
        at = int(where * max(len(content) - 1, 0))
        if kind == 'cut':
            del content[at:]
        elif kind == 'insert':
            content[at:at] = data
        elif kind == 'flip':
            content[at : at + len(data)] = data
        else:
            content[at:at] = content[at : at + 64]
    return bytes(content)


@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(name=st.sampled_from(['run.pth', 'pickle', 'old.pth', 'a.safetensors']), mutations=MUTATIONS)
def test_any_file_reads_as_a_dict_or_ends_in_one_line(originals, tmp_path, name, mutations):
    if name == 'pickle':  # inside the archive, with its checksum made good
        path = tmp_path / 'a.pth'
        put(tmp_path / 'whole.pth', originals['run.pth'])
        with zipfile.ZipFile(tmp_path / 'whole.pth') as archive, zipfile.ZipFile(path, 'w') as mutated:
            for member in archive.infolist():
                content = archive.read(member)
                mutated.writestr(member, mutate(content, mutations) if member.filename.endswith('.pkl') else content)
    else:
        path = put(tmp_path / name, mutate(originals[name], mutations))
    try:
        checkpoint = read_checkpoint(str(path))
        assert isinstance(checkpoint, dict)
        weights = checkpoint.get('state_dict', checkpoint)
        check_weights(weights if isinstance(weights, dict) else checkpoint, str(path))
    except CheckpointError as error:
        assert '\n' not in str(error) and str(path) in str(error)
