"""Files for other programs: a torch module written as ONNX and opened by onnxruntime."""

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fer.errors import InputError
from fer.prediction.backends import open_session
from fer.system.files import write_files

# what torch's exporter writes without converting anything; with it onnxruntime 1.18 (2024) and later read the file
_OPSET = 18


def write_onnx(
    module: nn.Module, out: Path, example: Tensor, input_name: str, output_names: Sequence[str],
    metadata: dict[str, str], check: Callable[[Any], None],
) -> Path:  # fmt: skip
    """Write a module as ONNX, its first dimension of any size, once ``check`` has seen its onnxruntime session.

    ``example`` is an input, ``input_name`` its name and ``output_names`` those of the outputs.

    Raises:
        InputError: onnx, onnxscript or onnxruntime is missing, or whatever ``check`` raises.
    """
    require("onnx", "onnxscript", "onnxruntime")
    import onnx

    program = torch.onnx.export(
        module, (example,), dynamo=True, verbose=False, opset_version=_OPSET, input_names=[input_name],
        output_names=list(output_names), dynamic_shapes=({0: torch.export.Dim("batch")},),
    )  # fmt: skip
    if program is None:
        raise RuntimeError("torch.onnx.export returned nothing")
    proto = program.model_proto
    _forget_source(proto)
    onnx.helper.set_model_props(proto, metadata)

    def write(path: Path) -> None:
        onnx.save(proto, path)
        onnx.checker.check_model(path, full_check=True)
        check(open_session(path))

    return write_files(out.parent, {out.name: write})[out.name]


def require(*modules: str) -> None:
    """Raise InputError where a module of the extra ``export`` is not installed."""
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise InputError(f"{module} is not installed: pip install '.[export]' in the checkout") from error


def checked(out: str | Path, suffix: str) -> Path:
    """Return a file to write as a path; InputError where it has another suffix or is a folder."""
    out = Path(out)
    if out.suffix != suffix or out.is_dir():
        raise InputError(f"out={out}: not the name of a {suffix} file")
    return out


def mib(size: int) -> str:
    return f"{size / 2**20:.2f} MiB"


def _forget_source(proto: Any) -> None:
    """Take the exporter's notes out of a model: they hold the paths and source lines of this installation."""
    graph = proto.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]
