"""A checkpoint as one file: for other programs ONNX in float32 or int8 or a torch.export program, or weights alone.

A program holds everything between the stored face and the answer: centre crop, scaling, normalisation, softmax. A file
is compared with the checkpoint before it gets its name. docs/export.md says how to use one.
"""

import io
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor, nn

from fer.data.loading.dataset import EVAL_BATCH
from fer.data.photos import channels_first
from fer.data.storage.hdf5 import opened, read_column, read_info
from fer.deployment.onnx import checked, mib, require, write_onnx
from fer.engines import CHECKPOINT, suffix_of
from fer.errors import InputError
from fer.evaluation.scoring import prepared_file, val_temperature
from fer.labels import require_same
from fer.models.checkpoint import describe, divide_logits, load_checkpoint, load_weights, save_weights
from fer.models.classifier import EmotionClassifier
from fer.models.crops import center_crop
from fer.models.networks import to_unit
from fer.prediction.backends import open_session, read_onnx
from fer.system.files import claiming, write_files

#: format= and how the name of its file ends.
SUFFIXES = {"onnx": ".onnx", "onnx_int8": ".int8.onnx", "pt2": ".pt2", "safetensors": ".safetensors"}

#: Smallest and largest temperature: far beyond what fits a network, not so far that its logits lose their meaning.
TEMPERATURES = 0.01, 100

#: Largest difference to the checkpoint's probabilities and, relative to their size, logits; then that of a weight file.
TOLERANCE, TOLERANCE_FLOAT16 = 1e-4, 1e-2


class Deployed(nn.Module):
    """All that a checkpoint does: faces uint8 (N, C, size, size) to probabilities and logits, float32 (N, classes)."""

    def __init__(self, model: EmotionClassifier) -> None:
        super().__init__()
        self.net, self.crop = model.net.requires_grad_(False), model.crop

    def forward(self, faces: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.net(to_unit(center_crop(faces, self.crop)))
        return logits.softmax(1), logits


def export(keys: dict[str, Any], data: dict[str, Any] | None) -> Path:
    """Write ``keys["ckpt"]`` as ``keys["format"]``, say what it is worth, and return the file.

    ``data`` is a checked data config for the calibration of int8 or of the temperature, None for the checkpoint's own.

    Raises:
        InputError: a wrong key, checkpoint or prepared file, or a package that is missing.
    """
    kind, ckpt, temperature = keys["format"], keys["ckpt"], keys["temperature"]
    if kind not in SUFFIXES:
        raise InputError(f"format={kind}: not one of {', '.join(SUFFIXES)}")
    low, high = TEMPERATURES
    known = temperature == "val" or (type(temperature) in (int, float) and low <= temperature <= high)
    if temperature is not None and not (known and kind == "safetensors"):
        raise InputError(
            f"temperature={temperature!s:.20}: only val or a number of {low} to {high}, and only with "
            "format=safetensors"
        )
    if data and kind != "onnx_int8" and temperature != "val":
        raise InputError(f"data= has no effect with format={kind}: it calibrates format=onnx_int8 and temperature=val")
    out = Path(keys["out"]) if keys["out"] else Path(ckpt).with_suffix(SUFFIXES[kind])
    with claiming(out):
        _write(kind, ckpt, out, data, temperature, keys["calibration"])
    print(f"wrote {out} ({mib(out.stat().st_size)})")
    return out


def _write(
    kind: str, ckpt: str, out: Path, data: dict[str, Any] | None, temperature: float | str | None, calibration: int
) -> None:
    if kind == "safetensors":
        export_weights(ckpt, out, val_temperature(ckpt, data) if isinstance(temperature, str) else temperature)
    elif kind != "onnx_int8":
        {"onnx": export_onnx, "pt2": export_torch}[kind](ckpt, out)
    else:
        file, *_ = prepared_file(load_checkpoint(ckpt), data)
        with tempfile.TemporaryDirectory(prefix="fer-export-") as folder:
            plain = export_onnx(ckpt, Path(folder, "float32.onnx"))
            accuracy = quantize(plain, out, file, calibration)
            size = plain.stat().st_size
        print(
            f"accuracy on {accuracy['n']:,} val faces of {file}: {accuracy['before']:.2%} in float32 ({mib(size)}), "
            f"{accuracy['after']:.2%} in int8 ({mib(out.stat().st_size)})"
        )


def export_weights(ckpt: str | Path, out: str | Path, temperature: float | None = None) -> Path:
    """Write a .ckpt as a weight file (see `fer.models.checkpoint`), its logits divided by ``temperature``.

    Its probabilities are the checkpoint's, so scaled, within TOLERANCE_FLOAT16.

    Raises:
        InputError: no checkpoint of ours, one that is a weight file already, or an output that differs.
    """
    model, out = load_checkpoint(ckpt), checked(out, ".safetensors")
    if suffix_of(ckpt) != CHECKPOINT:
        raise InputError(f"{ckpt}: is a weight file already; give the .ckpt that it was made from")
    if temperature is not None:
        divide_logits(model, temperature)
    whole = Deployed(model).eval()

    def write(path: Path) -> None:
        save_weights(model, path, temperature)
        read = Deployed(load_weights(path)).eval()
        _compare(lambda faces: [v.numpy() for v in read(faces)], whole, model, f"{out} loaded again", TOLERANCE_FLOAT16)

    return write_files(out.parent, {out.name: write})[out.name]


def export_onnx(ckpt: str | Path, out: str | Path) -> Path:
    """Write a checkpoint as ONNX, equal to it under onnxruntime within TOLERANCE, and return the path.

    Input ``faces`` uint8 (batch, C, size, size), any batch; outputs ``probabilities`` and ``logits`` float32 (batch,
    classes); metadata: see `describe`.

    Raises:
        InputError: no checkpoint of ours, onnx, onnxscript or onnxruntime missing, or an output that differs.
    """
    require("onnx", "onnxscript", "onnxruntime")
    model, out = load_checkpoint(ckpt), checked(out, ".onnx")
    whole = _run_once(Deployed(model).eval(), model)

    def check(session: Any) -> None:
        _compare(lambda faces: session.run(None, {"faces": faces.numpy()}), whole, model, f"{out} under onnxruntime")

    return write_onnx(whole, out, _random_faces(model, 2), "faces", ("probabilities", "logits"), describe(model), check)


def _run_once(whole: Deployed, model: EmotionClassifier) -> Deployed:
    """Return a module that was run before: what it says then would be hidden in torch's error of an export."""
    with torch.no_grad():
        whole(_random_faces(model, 2))
    return whole


def export_torch(ckpt: str | Path, out: str | Path) -> Path:
    """Write a checkpoint as a torch.export program, equal to it within TOLERANCE after loading, and return the path.

    Input and outputs as in `export_onnx`; the extra file ``metadata.json`` holds `describe`.

    Raises:
        InputError: no checkpoint of ours, or an output that differs.
    """
    model, out = load_checkpoint(ckpt), checked(out, ".pt2")
    whole = _run_once(Deployed(model).eval(), model)
    batch = torch.export.Dim("batch")
    program = torch.export.export(whole, (_random_faces(model, 2),), dynamic_shapes=({0: batch},))
    # a file's own name would become the name of the folder in the archive
    archive = io.BytesIO()
    torch.export.save(program, archive, extra_files={"metadata.json": json.dumps(describe(model))})

    def write(path: Path) -> None:
        path.write_bytes(archive.getvalue())
        loaded = torch.export.load(io.BytesIO(path.read_bytes())).module()
        _compare(lambda faces: [values.numpy() for values in loaded(faces)], whole, model, f"{out} loaded again")

    return write_files(out.parent, {out.name: write})[out.name]


def quantize(onnx_file: str | Path, out: str | Path, file: str | Path, rows: int = 512) -> dict[str, Any]:
    """Write an ONNX file of `export_onnx` with int8 weights and activations, and return accuracy before and after.

    Static quantisation of onnxruntime (QDQ): weights int8 with a scale a channel, activations uint8, their ranges the
    smallest and largest values over ``rows`` random faces (seed 0) of the train split of a prepared ``file``; the last
    layer stays in float32. Returns accuracy ``before`` and ``after`` (fractions) on the ``n`` val faces of the file,
    which calibration does not see.

    Raises:
        InputError: other classes or faces in ``file``, no train or val split, or onnx or onnxruntime missing.
    """
    require("onnx", "onnxruntime")
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    out, info = checked(out, ".onnx"), read_info(file)
    if info.path.is_dir():
        raise InputError(f"{file}: shards are not calibrated on; prepare the same data with format=h5")
    before = open_session(onnx_file)
    labels, _, face, _ = read_onnx(before, onnx_file)
    meta = before.get_modelmeta().custom_metadata_map
    require_same(labels, info.class_names, str(onnx_file), str(file))
    if face.shape != info.face.shape:
        raise InputError(
            f"the network takes faces of size {face.size} {face.color}, {file} holds size {info.face.size} "
            f"{info.face.color}: prepare it with data.size={face.size} data.color={face.color}"
        )
    if rows < 1 or not info.rows("train"):
        raise InputError(f"calibration={rows} faces of {file}, which has {info.rows('train'):,} in its train split")
    calibration = _Calibration(file, rows, info.rows("train"))
    accuracy = {"n": info.rows("val"), "before": _accuracy(before, file)}

    def write(path: Path) -> None:
        with tempfile.TemporaryDirectory(prefix="fer-export-") as folder:
            folded = Path(folder, "folded.onnx")
            # as onnxruntime asks: all shapes inferred, and what can be folded folded
            quant_pre_process(str(onnx_file), str(folded), skip_symbolic_shape=True)
            # a last layer in int8 would give the same few values to different faces
            last = [n.name for n in onnx.load(folded).graph.node if {"logits", "probabilities"} & set(n.output)]
            quantize_static(
                folded, path, calibration, quant_format=QuantFormat.QDQ, per_channel=True,
                activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, nodes_to_exclude=last,
            )  # fmt: skip
        proto = onnx.load(path)
        onnx.helper.set_model_props(
            proto, meta | {"calibration": f"{calibration.rows} train faces of {info.path.name}"}
        )
        onnx.save(proto, path)
        onnx.checker.check_model(path, full_check=True)
        accuracy["after"] = _accuracy(open_session(path), file)

    write_files(out.parent, {out.name: write})
    return accuracy


class _Calibration:
    """Random training faces, a few at a time, as onnxruntime asks for them."""

    def __init__(self, file: str | Path, rows: int, available: int) -> None:
        self.rows = min(rows, available)
        chosen = np.random.default_rng(0).choice(available, self.rows, replace=False)
        with opened(file) as store:
            # never the whole split, which may be larger than the memory; h5py wants rows in order
            faces = channels_first(store["train/image"][np.sort(chosen)])
        self._batches = iter(np.array_split(faces, -(-self.rows // 32)))

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self._batches, None)
        return None if batch is None else {"faces": batch}


def _accuracy(session: Any, file: str | Path) -> float:
    labels = read_column(file, "val", "label")
    with opened(file) as store:
        images = store["val/image"]
        named = [session.run(["probabilities"], {"faces": faces})[0].argmax(1) for faces in _batches(images)]
    return float((np.concatenate(named) == labels).mean())


def _batches(images: h5py.Dataset) -> Iterator[np.ndarray]:
    for start in range(0, len(images), EVAL_BATCH):
        yield channels_first(images[start : start + EVAL_BATCH])


def _compare(run: Callable[[Tensor], Any], whole: Deployed, model, what: str, tolerance: float = TOLERANCE) -> None:
    for n in (1, 7):
        faces = _random_faces(model, n)
        with torch.inference_mode():
            wanted = [values.numpy() for values in whole(faces)]
        for name, ours, theirs in zip(("probabilities", "logits"), wanted, run(faces), strict=True):
            if ours.shape != theirs.shape or not np.allclose(theirs, ours, rtol=tolerance, atol=tolerance):
                raise InputError(f"{what}: {name} of {n} faces differ from the checkpoint's by more than {tolerance}")


def _random_faces(model: EmotionClassifier, n: int) -> Tensor:
    faces = np.random.default_rng(n).integers(0, 256, (n, *model.face.shape), np.uint8)
    return torch.from_numpy(channels_first(faces))
