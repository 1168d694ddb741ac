"""Writes a graph to a file, and runs such a file."""

import json
import re
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from torch.fx.experimental import _config as shapes_config

from ..errors import SettingError
from .graphs import Graph
from .ops import onnx_translations

FORMATS = dict(
    onnx=('.onnx', ('onnx', 'onnxscript', 'onnxruntime')),
    openvino=('.xml', ('onnx', 'onnxscript', 'openvino')),
    torch_export=('.pt2', ()),
)
AXES = ('batch', 'height', 'width')
META = 'pvt_mm'  # the key that a file has its settings under, as JSON

Run = Callable[[np.ndarray], dict[str, np.ndarray]]


def check_packages(kind: str) -> None:
    """Raises SettingError where a format needs a package that is not installed, or a later torch."""
    if not hasattr(shapes_config, 'backed_size_oblivious'):  # and its ONNX cannot resize to a free size
        raise SettingError(
            f'torch {torch.__version__} cannot record a graph for any size: export with torch 2.7 or later, which '
            'reads the same checkpoints'
        )
    missing = [name for name in FORMATS[kind][1] if find_spec(name) is None]
    if missing:
        raise SettingError(f"--to {kind} needs {' and '.join(missing)}: pip install 'pvt_mm[export]'")


def trace(graph: Graph, size: tuple[int, int] | None = None) -> torch.export.ExportedProgram:
    """The graph as torch.export records it.

    Args:
        graph: In evaluation mode.
        size: Height and width of the made-up images that it is recorded with. The default is the only size of a fixed
            graph; else it needs more than one window, and no square: torch.export must not take sides for equal.

    Raises:
        SettingError: torch.export cannot follow the model.
    """
    if size is None:
        size = graph.min_size if graph.is_fixed else tuple(low + 96 + 32 * i for i, low in enumerate(graph.min_size))
    dims = {0: torch.export.Dim('batch', max=2**12)}
    if not graph.is_fixed:
        dims |= {i: torch.export.Dim(name, min=low) for i, (name, low) in enumerate(zip(AXES[1:], graph.min_size), 1)}
    images = torch.zeros(2, *size, graph.channels, dtype=torch.uint8)
    try:
        # As torch.onnx.export does: a size that may be 1, as the number of windows, is no case of its own.
        with torch.no_grad(), warnings.catch_warnings(), shapes_config.patch(backed_size_oblivious=graph.is_unguarded):
            warnings.simplefilter('ignore')
            program = torch.export.export(
                graph,
                (images,),
                dynamic_shapes=(dims,),
                prefer_deferred_runtime_asserts_over_guards=graph.is_unguarded,
            )
    except SettingError:
        raise
    except Exception as error:  # torch.export raises whatever the model's code raises under it
        raise SettingError(
            f'torch.export cannot follow {type(graph.model).__name__}: {first_line(error)}. '
            'What decides by values or sizes must be written with tensors; --part backbone leaves the heads out'
        ) from error
    if graph.is_unguarded:
        for node in list(program.graph.nodes):
            if node.target is torch.ops.aten._assert_scalar.default:
                program.graph.erase_node(node)
        program.graph.eliminate_dead_code()
        program.graph_module.recompile()
    return program


def to_onnx(program: torch.export.ExportedProgram, graph: Graph) -> torch.onnx.ONNXProgram:
    """A program of :func:`trace` in the operators of ONNX.

    Raises:
        SettingError: ONNX lacks one.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            onnx = torch.onnx.export(
                program,
                dynamo=True,
                custom_translation_table=onnx_translations(),
                input_names=['images'],
                output_names=list(graph.outputs),
                verbose=False,
            )
    except Exception as error:  # the exporter's own types, by version
        operators = _operators(error)
        detail = f'ONNX has no {operators}' if operators else first_line(error)
        raise SettingError(
            f'{type(graph.model).__name__} cannot be written as ONNX: {detail}. '
            '--to torch_export keeps the operators of torch; --part backbone leaves the heads out'
        ) from error
    symbols = {str(dim): name for dim, name in zip(onnx.model.graph.inputs[0].shape, AXES)}
    for value in (*onnx.model.graph.inputs, *onnx.model.graph.outputs):
        value.shape = type(value.shape)(
            [symbols.get(str(dim), str(dim)) if not isinstance(dim, int) else dim for dim in value.shape]
        )
    return onnx


def write_onnx(onnx: torch.onnx.ONNXProgram, meta: dict, path: Path) -> None:
    onnx.model.metadata_props[META] = json.dumps(meta)
    onnx.save(path)


def write_openvino(onnx: torch.onnx.ONNXProgram, meta: dict, path: Path) -> None:
    """Writes an .xml and a .bin.

    Raises:
        SettingError: OpenVINO lacks an operator.
    """
    import openvino

    onnx_path = path.with_suffix('.tmp.onnx')
    onnx.save(onnx_path)
    try:
        model = openvino.Core().read_model(onnx_path)
    except Exception as error:  # openvino's own types, by version
        raise SettingError(
            f'OpenVINO cannot read the graph: {_operators(error) or first_line(error)}. --to onnx is for onnxruntime'
        ) from error
    finally:
        onnx_path.unlink()
    model.set_rt_info(json.dumps(meta), META)
    openvino.save_model(model, path, compress_to_fp16=False)


def write(program: torch.export.ExportedProgram, graph: Graph, meta: dict, kind: str, path: Path) -> None:
    """Writes a program of :func:`trace` in one of the formats.

    Raises:
        SettingError: It has an operator that the format lacks.
    """
    if kind == 'torch_export':
        torch.export.save(program, path, extra_files={META: json.dumps(meta)})
    else:
        dict(onnx=write_onnx, openvino=write_openvino)[kind](to_onnx(program, graph), meta, path)


def _operators(error: BaseException) -> str:
    """The operators that an error, or what it came from, names."""
    while error is not None:
        found = re.findall(
            r"OpOverload\(op='([\w.:]+)'|for operations?:\s*\n?([\w.:, ]+)|No conversion .* for (\S+)", str(error)
        )
        if found:
            return ', '.join(dict.fromkeys(next(filter(None, groups)).strip() for groups in found))
        error = error.__cause__
    return ''


def first_line(error: BaseException) -> str:
    """The type of what an error came from, and what it begins with."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f'{type(error).__name__}: {" ".join(lines[:2])[:300]}'


def load(path: Path, threads: int = 0) -> tuple[Run, dict]:
    """What runs the graph in a file, images in, outputs by name, and its settings.

    Args:
        path: A file of :func:`write`.
        threads: Of onnxruntime or OpenVINO; 0: as many as they choose.
    """
    if path.suffix == '.onnx':
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
        meta = json.loads(session.get_modelmeta().custom_metadata_map[META])

        def run(images: np.ndarray) -> dict[str, np.ndarray]:
            return dict(zip(meta['outputs'], session.run(None, {'images': images})))

    elif path.suffix == '.xml':
        import openvino

        core = openvino.Core()
        model = core.read_model(path)
        meta = json.loads(model.get_rt_info(META).astype(str))
        settings = {'INFERENCE_PRECISION_HINT': 'f32', 'INFERENCE_NUM_THREADS': threads}
        compiled = core.compile_model(model, 'CPU', settings)

        def run(images: np.ndarray) -> dict[str, np.ndarray]:
            found = compiled(images)
            return {name: found[i] for i, name in enumerate(meta['outputs'])}

    else:
        extra = {META: ''}
        module = torch.export.load(path, extra_files=extra).module()
        meta = json.loads(extra[META])

        def run(images: np.ndarray) -> dict[str, np.ndarray]:
            with torch.no_grad():
                found = module(torch.from_numpy(images))
            return {name: value.numpy() for name, value in zip(meta['outputs'], found)}

    return run, meta
