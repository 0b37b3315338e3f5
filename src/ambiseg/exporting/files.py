"""Files of exported models: ONNX, and exported programs of PyTorch."""

from __future__ import annotations

import importlib
import json
import logging
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.fx.experimental import _config as shape_settings

from ambiseg.atomic_write import replacing_file
from ambiseg.engine.postprocess import PredictSettings
from ambiseg.engine.run import Run
from ambiseg.errors import AmbisegError, UnknownNameError
from ambiseg.exporting.graph import BATCH, HEIGHT, WIDTH, DeployedModel, NoiseInput
from ambiseg.version import __version__

Format = Literal["onnx", "torch"]
METADATA = "ambiseg"
"""Key of what an exported file says of itself, as JSON."""
LARGEST = 2**31 - 2**24
"""Bytes of weights: an ONNX file is a single protobuf message, which holds at most 2 GiB."""
RANDOM = ("rand", "bernoulli", "multinomial", "normal", "dropout")
"""Beginnings of the names of operators that draw random numbers; dropout has a last argument of False where it is off."""
EXAMPLE = (2, 40, 56)
"""Batch, height and width that are traced; all three are free in the graph."""

Inference = Callable[[Tensor, Sequence[Tensor]], list[np.ndarray[Any, Any]]]


def export(
    run: Run,
    out: Path,
    kind: Format,
    settings: PredictSettings | None = None,
    licence: str = "",
    overwrite: bool = False,
) -> DeployedModel:
    """Write a run as one file that is run without this library.

    Args:
        run: loaded with ``precision="32", device="cpu"``.
        out: the file.
        kind: ``onnx``, or ``torch`` for `torch.export.load`.
        settings: filters and number of samples.
        licence: of the weights, for the file's description of itself.
        overwrite: replace an earlier export.

    Returns:
        The model that was traced, to compare with (`inference`).

    Raises:
        AmbisegError: the method cannot be exported, a package is missing, or the weights do not fit in a file.
    """
    if kind not in get_args(Format):
        raise UnknownNameError("format", kind, get_args(Format))
    if kind == "onnx":
        for package in ("onnx", "onnxscript"):
            _needed(package)
    deployed = DeployedModel(run, settings)
    size = sum(value.numel() * value.element_size() for value in deployed.state_dict().values())
    if kind == "onnx" and size > LARGEST:
        raise AmbisegError(
            f"an ONNX file holds at most 2 GiB of weights, this model has {size / 2**30:.1f}: use --format torch"
        )
    program, text = traced(deployed, run), json.dumps(described(deployed, run, licence))
    with replacing_file(out, overwrite, _is_ours) as partial:
        if kind == "torch":
            torch.export.save(program, partial, extra_files={METADATA: text})
        else:
            _save_onnx(program, deployed, text, partial)
    return deployed


def _is_ours(path: Path) -> bool:
    """Whether a file is one that `export` wrote."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(f"extra/{METADATA}") for name in archive.namelist())
    except zipfile.BadZipFile:
        with open(path, "rb") as file:
            return METADATA.encode() in file.read(64)


def described(deployed: DeployedModel, run: Run, licence: str = "") -> dict[str, Any]:
    """What an exported file says of itself: method, classes, inputs and outputs."""
    config = run.config
    return {
        "ambiseg": __version__,
        "method": config.method,
        "data": Path(config.data).name,
        "classes": list(config.labels.names),
        "channels": list(config.channels) or config.in_channels,
        "masks": deployed.masks,
        "inputs": {"image": [BATCH, config.in_channels, HEIGHT, WIDTH]}
        | {noise.name: list(noise.axes) for noise in deployed.noise},
        "outputs": list(deployed.outputs),
        "kept": deployed.values.words(),
        "licence": licence,
    }


@torch.no_grad()
def traced(deployed: DeployedModel, run: Run) -> torch.export.ExportedProgram:
    """The graph, with any batch and image size.

    Raises:
        AmbisegError: the method does what a graph cannot.
    """
    image, noise = deployed.example(*EXAMPLE)
    free = torch.export.Dim.DYNAMIC
    axes = [{i: free for i, axis in enumerate(one.axes) if isinstance(axis, str)} for one in deployed.noise]
    name = run.config.method
    try:
        # Without this a batch of 1, and images that need no padding, would be other graphs.
        with _quiet(), shape_settings.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
            program = torch.export.export(
                deployed.eval(),
                (image, *noise),
                dynamic_shapes=({0: free, 2: free, 3: free}, *((tuple(axes),) if axes else ())),
                strict=False,
                prefer_deferred_runtime_asserts_over_guards=True,
            )
    except AmbisegError:
        raise
    except Exception as error:  # torch raises many kinds
        line = " ".join(str(error).split())[:200]
        raise AmbisegError(
            f"a {name} run cannot be exported: torch.export refuses its network ({line}); take another --format, or say so"
            " in export_obstacle if the method is yours"
        ) from error
    for weight, value in program.state_dict.items():
        if isinstance(value, torch.nn.Parameter):  # so that the results ask for no gradients
            program.state_dict[weight] = torch.nn.Parameter(value.detach(), requires_grad=False)
    for part in program.graph_module.modules():
        if isinstance(part, torch.fx.GraphModule):
            _without_assertions(part)
    for node in program.graph.nodes:
        operator = str(node.target).removeprefix("aten.")
        if node.op == "call_function" and operator.startswith(RANDOM) and node.args[-1] is not False:
            raise AmbisegError(
                f"a {name} run cannot be exported: its network draws random numbers by itself ({operator}); draw them with"
                " ambiseg.distributions.noise.standard_normal if the method is yours"
            )
    return program


def _without_assertions(part: torch.fx.GraphModule) -> None:
    """Remove what was assumed of sizes while tracing: it holds at the traced sizes, and the graph is right at others."""
    for node in part.graph.find_nodes(op="call_function", target=torch.ops.aten._assert_scalar.default):
        part.graph.erase_node(node)
    part.graph.eliminate_dead_code()
    part.recompile()


def _save_onnx(
    program: torch.export.ExportedProgram, deployed: DeployedModel, text: str, partial: Path
) -> None:
    names = ["image", *(noise.name for noise in deployed.noise)]
    try:
        with _quiet():
            found = torch.onnx.export(
                program,
                dynamo=True,
                external_data=False,
                verbose=False,
                input_names=names,
                output_names=deployed.outputs,
            )
    except Exception as error:  # of the network of another package
        cause = " ".join(str(error.__cause__ or error).split())[:120]
        raise AmbisegError(
            f"this run cannot be exported as ONNX: torch.onnx refuses its network ({cause}); take --format torch, or train"
            " with another backbone.kind"
        ) from error
    assert found is not None
    model = found.model_proto
    _name_axes(model.graph, deployed.noise)
    model.metadata_props.add(key=METADATA, value=text)
    model.producer_name, model.producer_version = "ambiseg", __version__
    partial.write_bytes(model.SerializeToString())


def _name_axes(graph: Any, noise: Sequence[NoiseInput]) -> None:
    """Give the free axes of inputs and outputs their names."""
    inputs = {"image": (BATCH, None, HEIGHT, WIDTH)} | {one.name: one.axes for one in noise}
    names: dict[str, str] = {}
    for value in graph.input:
        for dim, axis in zip(value.type.tensor_type.shape.dim, inputs[value.name], strict=True):
            if isinstance(axis, str):
                names[dim.dim_param] = axis
    for value in (*graph.input, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in names:
                dim.dim_param = names[dim.dim_param]
    for value in graph.output:
        dims = value.type.tensor_type.shape.dim
        dims[0].dim_param = BATCH
        for dim, axis in zip(dims[2:], (HEIGHT, WIDTH), strict=False):
            dim.dim_param = axis


def inference(path: Path, kind: Format, threads: int = 0) -> Inference:
    """A function of image and noise that runs an exported file.

    Raises:
        AmbisegError: the package that runs it is missing.
    """
    if kind == "torch":
        module = torch.export.load(path).module()
        return lambda image, noise: [value.numpy() for value in module(image, *noise)]
    runtime = _needed("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]

    def run(image: Tensor, noise: Sequence[Tensor]) -> list[np.ndarray[Any, Any]]:
        arrays = [value.numpy() for value in (image, *noise)]
        found: list[np.ndarray[Any, Any]] = session.run(None, dict(zip(names, arrays, strict=True)))
        return found

    return run


@torch.no_grad()
def differences(
    deployed: DeployedModel, exported: Inference, image: Tensor, noise: Sequence[Tensor]
) -> tuple[float, float]:
    """Share of pixels of kept masks that differ between a model and its file, and the largest difference of weights."""
    wanted = [value.numpy() for value in deployed(image, *noise)[:2]]
    found = exported(image, noise)[:2]
    missing = found[1].shape[1] - wanted[1].shape[1]  # the graph has places for masks that are dropped
    masks, weights = (np.pad(value, [(0, 0), (0, missing), *[(0, 0)] * (value.ndim - 2)]) for value in wanted)
    kept = (weights > 0) | (found[1] > 0)
    return float((masks[kept] != found[0][kept]).mean()), float(np.abs(weights - found[1]).max())


def _needed(package: str) -> Any:
    """A package of the extra ``onnx``.

    Raises:
        AmbisegError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise AmbisegError(
            f"ONNX needs the package {package}, which is not installed: pip install 'ambiseg[onnx]'"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the notes of torch about itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)
