"""Face networks as ONNX files that insightface loads unchanged, and the settings beside them."""

from __future__ import annotations

import importlib
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from igrpo_sdk.errors import DependencyError
from igrpo_sdk.media.files import written_whole

from .alignment import CROP
from .detector import STRIDES, Exported

DETECTOR_FILE, RECOGNISER_FILE, PACK_FILE = "detector.onnx", "recogniser.onnx", "pack.json"
_OPSET = 17
_LEAST_HALVED = 64  # values; smaller weights stay in float32


def export_detector(network: nn.Module, path: Path) -> None:
    """Write a settled `Detector`: input (N, 3, H, W), sides divisible by 32; nine outputs."""
    names = [f"{kind}_{stride}" for kind in ("score", "box", "points") for stride in STRIDES]
    axes = {"input": {0: "batch", 2: "height", 3: "width"}}
    axes |= {name: {0: "batch", 1: f"anchors_{name}"} for name in names}
    _export(Exported(network), torch.zeros(2, 3, 64, 96), path, names, axes)


def export_recogniser(network: nn.Module, path: Path) -> None:
    """Write a settled `Recogniser`: input (N, 3, 112, 112), output (N, D)."""
    axes = {"input": {0: "batch"}, "embedding": {0: "batch"}}
    _export(network, torch.zeros(2, 3, CROP, CROP), path, ["embedding"], axes)


def _export(
    network: nn.Module, example: Tensor, path: Path, outputs: list[str], axes: dict[str, dict[int, str]]
) -> None:
    """Trace the network on the CPU and write it whole or not at all, its weights in half precision."""
    onnx = _require_onnx()
    with written_whole(path, overwrite=True) as partial, warnings.catch_warnings():
        # This exporter is deprecated, but the other one needs onnxscript; constants under tracing are meant.
        warnings.simplefilter("ignore", (DeprecationWarning, torch.jit.TracerWarning))  # type: ignore[attr-defined]
        torch.onnx.export(
            network.cpu().eval(),
            (example,),
            partial,
            input_names=["input"],
            output_names=outputs,
            dynamic_axes=axes,
            opset_version=_OPSET,
            dynamo=False,
        )
        model = onnx.load(partial)
        _halve_weights(onnx, model)
        onnx.checker.check_model(model)
        onnx.save(model, partial)


def _halve_weights(onnx: Any, model: Any) -> None:
    """Store large weights as float16 behind a cast; a session undoes the casts once, when it loads."""
    weights, casts = [], []
    for weight in model.graph.initializer:
        values = onnx.numpy_helper.to_array(weight)
        if values.dtype != "float32" or values.size < _LEAST_HALVED:
            weights.append(weight)
            continue
        name = weight.name + "_half"
        weights.append(onnx.numpy_helper.from_array(values.astype("float16"), name))
        casts.append(onnx.helper.make_node("Cast", [name], [weight.name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend(weights)
    model.graph.node.extend(nodes)


def _require_onnx() -> Any:
    try:
        return importlib.import_module("onnx")
    except ImportError as error:
        raise DependencyError(
            f"writing face networks needs onnx ({error}): install it with: pip install 'igrpo-sdk[faces]'"
        ) from None
