"""Files of trained networks: checkpoints, weight files and exported ones."""

import contextlib
import io
import json
import struct
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from fer.data.source import FaceFormat
from fer.models.checkpoint import load_checkpoint, save_weights
from fer.models.classifier import IDENTITIES, EmotionClassifier
from fer.prediction.backends import OnnxNetwork
from tests.conftest import fit, train_config, write_tiny
from tests.fuzz.family import Family, require, workplace
from tests.fuzz.mutations import HOSTILE_VALUES, Case, as_json, changed_bytes, changed_document

SIDE = 16
_LABELS = ["Angry", "Disgust", "Fear", "Happy", "Sad", "Surprise", "Neutral"]


@cache
def _checkpoint() -> dict[str, Any]:
    """The content of a checkpoint of one epoch's training of a small grey network."""
    file = write_tiny(workplace() / "train.h5", {"train": 14, "val": 7}, FaceFormat(SIDE))
    size = {"data.size": SIDE, "augment.crop": SIDE, "model.in_channels": 1, "trainer.max_epochs": 1}
    with warnings.catch_warnings():
        # Lightning's about the number of workers
        warnings.simplefilter("ignore")
        fit(train_config(file, **size), workplace() / "run")
    return torch.load(workplace() / "run/checkpoints/best.ckpt", weights_only=True)


@cache
def _model() -> EmotionClassifier:
    path = workplace() / "whole.ckpt"
    path.write_bytes(_checkpoint_bytes())
    return load_checkpoint(path)


@cache
def _faces() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 1, SIDE, SIDE)).astype(np.uint8))


@cache
def _logits() -> torch.Tensor:
    with torch.inference_mode():
        return _model()(_faces())


def _saved(content: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@cache
def _checkpoint_bytes() -> bytes:
    return _saved(_checkpoint())


@st.composite
def _checkpoints(draw: st.DrawFn) -> Case:
    how = draw(st.sampled_from(("bytes", "ends", "parameter", "parameter", "parameter", "tensor", "tensor", "top")))
    content = _checkpoint_bytes()
    if how == "bytes":
        return draw(changed_bytes(content))
    if how == "ends":
        # the pickle and the directory are at the ends
        edge = draw(st.sampled_from((2000, -3000)))
        part = content[:edge] if edge > 0 else content[edge:]
        case = draw(changed_bytes(part))
        return Case(case.how, case.content + content[edge:] if edge > 0 else content[:edge] + case.content)
    document = dict(_checkpoint())
    if how == "parameter":
        case = draw(changed_document(document["hyper_parameters"]))
        return Case(f"parameter {case.how}", _saved(document | {"hyper_parameters": case.content}), case.note)
    if how == "top":
        key = draw(st.sampled_from(("hyper_parameters", "state_dict", "identities")))
        value = draw(st.sampled_from((None, [], {}, "x", 1, torch.zeros(2))))
        return Case(f"{key}: replaced", _saved(document | {key: value}), key)
    where = draw(st.sampled_from(("state_dict", "state_dict", "identities")))
    tensors = dict(document[where])
    name = draw(st.sampled_from(sorted(tensors)))
    detail, tensors = _change_tensor(draw, tensors, name)
    return Case(f"{where}: {detail}", _saved(document | {where: tensors}), name)


def _change_tensor(draw: st.DrawFn, tensors: dict[str, Any], name: str) -> tuple[str, dict[str, Any]]:
    values = tensors[name]
    how = draw(st.sampled_from(("nan", "infinite", "negative", "left out", "shape", "type", "no tensor", "renamed")))
    if how == "left out":
        return how, {key: value for key, value in tensors.items() if key != name}
    if how == "renamed":
        return how, {f"{key}x" if key == name else key: value for key, value in tensors.items()}
    if how == "no tensor":
        return how, tensors | {name: draw(st.sampled_from((None, 1, "x", [])))}
    if how == "shape":
        return how, tensors | {name: values.reshape(-1)[:1] if draw(st.booleans()) else values[None]}
    if how == "type":
        return how, tensors | {name: values.to(draw(st.sampled_from((torch.bool, torch.complex64, torch.int8))))}
    if not values.is_floating_point():
        return "values as they were", tensors
    values = values.clone()
    values.view(-1)[-1] = {"nan": float("nan"), "infinite": float("inf"), "negative": -1.0}[how]
    return how if how != "negative" or name.endswith("running_var") else "another weight", tensors | {name: values}


def _require_same(model: EmotionClassifier, case: Case, tolerance: float = 0.0) -> None:
    """Raise `Wrong` where a model is not the one that was saved, but for what was changed to a possible value."""
    require(list(model.labels) == _LABELS or _renamed(case, model.labels), f"labels {model.labels!r:.80}")
    require((model.face.size, model.face.color) == (SIDE, "grey"), f"face {model.face!r:.80}")
    require(type(model.crop) is int and 1 <= model.crop <= SIDE, f"crop {model.crop!r:.40}")
    margin = model.face.margin
    require(type(margin) in (int, float) and 0 <= margin <= 2, f"margin {margin!r:.40}")
    require(isinstance(model.drawn, bool) and isinstance(model.data["drawn"], bool), f"drawn {model.data!r:.80}")
    require(isinstance(model.data["name"], str) and isinstance(model.name, str), f"data {model.data!r:.80}")
    require(set(model.identities) == set(IDENTITIES), f"identities {list(model.identities)!r:.80}")
    for known in model.identities.values():
        require(
            isinstance(known, torch.Tensor) and known.dtype in (torch.int64, torch.uint8), "identities of another type"
        )
        require(known.ndim == (1 if known.dtype == torch.int64 else 2), f"identities {tuple(known.shape)}")
    with torch.inference_mode():
        logits = model(_faces())
    require(logits.isfinite().all(), "logits that are not finite")
    finite = all(values.isfinite().all() for values in model.net.state_dict().values())
    require(finite, "weights that are not finite")
    variances = [values for name, values in model.net.state_dict().items() if name.endswith("running_var")]
    require(all((values >= 0).all() for values in variances), "a negative variance")
    if "another weight" not in case.how and not _may_differ(case):
        require(torch.allclose(logits, _logits(), atol=tolerance, rtol=tolerance), "other logits")


def _renamed(case: Case, labels: list[str]) -> bool:
    """Say whether labels are those of a case that made another word of one, which a file may say."""
    different = [label for label in labels if label not in _LABELS]
    return len(labels) == 7 == len(set(labels)) and all(isinstance(one, str) and one.strip() for one in different)


def _may_differ(case: Case) -> bool:
    """Say whether a change is of a possible number: mean and std, or a crop."""
    return isinstance(case.note, tuple) and (case.note[:1] == ("augment",) or case.note[-1:] in (("mean",), ("std",)))


def _open_checkpoint(case: Case, folder: Path) -> None:
    path = folder / "best.ckpt"
    path.write_bytes(case.content)
    _require_same(load_checkpoint(path), case)


@cache
def _weights() -> bytes:
    path = workplace() / "best.safetensors"
    save_weights(_model(), path)
    return path.read_bytes()


@st.composite
def _weight_files(draw: st.DrawFn) -> Case:
    content = _weights()
    (length,) = struct.unpack("<Q", content[:8])
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    how = draw(st.sampled_from(("head", "bytes", "header", "metadata", "parameter", "parameter", "tensor")))
    if how == "bytes":
        return draw(changed_bytes(content))
    if how == "head":
        case = draw(changed_bytes(content[: 8 + length]))
        return Case(f"header {case.how}", case.content + data)
    note: Any = None
    if how == "header":
        case = draw(changed_document(header))
        header, detail, note = case.content, f"header: {case.how.split(': ')[-1]}", case.note
    elif how == "metadata":
        case = draw(changed_document(header["__metadata__"], tuple(v for v in HOSTILE_VALUES if isinstance(v, str))))
        header, detail = header | {"__metadata__": case.content}, f"metadata {case.how}"
        note = ("metadata", *case.note)
    elif how == "parameter":
        case = draw(changed_document(json.loads(header["__metadata__"]["hyper_parameters"])))
        metadata = header["__metadata__"] | {"hyper_parameters": as_json(case).content.decode("utf-8", "replace")}
        header, detail, note = header | {"__metadata__": metadata}, f"parameter {case.how}", case.note
    else:
        name = draw(st.sampled_from(sorted(set(header) - {"__metadata__"})))
        start, end = header[name]["data_offsets"]
        width = {"F16": 2, "F32": 4}.get(header[name]["dtype"])
        bad = {2: np.float16, 4: np.float32}.get(width)
        other = draw(st.sampled_from(("nan", "inf", "-1")))
        if bad is None:
            return Case("tensor: as it was", content)
        data = data[: end - width] + bad(other).tobytes() + data[end:]
        detail = "tensor: another weight" if other == "-1" and "running_var" not in name else f"tensor: {other}"
        note = name
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    return Case(detail, struct.pack("<Q", len(text)) + text + data, note)


def _open_weights(case: Case, folder: Path) -> None:
    path = folder / "best.safetensors"
    path.write_bytes(case.content)
    # the file has no check sum: a bit of a weight may be another one
    may_be_other = case.how.startswith("bytes") or "header bytes" in case.how
    if (
        case.note
        and case.note[0] not in ("metadata", "augment")
        and len(case.note) == 3
        and case.note[1] == "data_offsets"
    ):
        may_be_other = True
    _require_same(load_checkpoint(path), Case("another weight", case.content) if may_be_other else case, 0.02)


@cache
def _onnx() -> Any:
    """A network as export.py writes one, but tiny: the mean of the face on seven weights."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(np.linspace(-1, 1, 7, dtype=np.float32)[None], "weights")
    nodes = [
        helper.make_node("Cast", ["faces"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("GlobalAveragePool", ["x"], ["mean"]),
        helper.make_node("Flatten", ["mean"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    faces = helper.make_tensor_value_info("faces", TensorProto.UINT8, ["batch", 1, SIDE, SIDE])
    probabilities = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["batch", 7])
    graph = helper.make_graph(nodes, "net", [faces], [probabilities], [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, _metadata())
    onnx.checker.check_model(model)
    return model


def _metadata() -> dict[str, str]:
    return {
        "project": "fer-lightning", "name": "vgg_small", "labels": json.dumps(_LABELS), "data": "fer2013",
        "face": json.dumps({"size": SIDE, "color": "grey", "margin": 0.0}), "drawn": "false",
    }  # fmt: skip


@st.composite
def _onnx_files(draw: st.DrawFn) -> Case:
    from onnx import helper, numpy_helper

    how = draw(st.sampled_from(("bytes", "metadata", "metadata", "labels", "face", "graph", "graph")))
    if how == "bytes":
        return draw(changed_bytes(_onnx().SerializeToString()))
    model = type(_onnx())()
    model.CopyFrom(_onnx())
    metadata: dict[str, Any] = _metadata()
    note: Any = None
    if how == "metadata":
        words = ("", "x", "null", "1", "[]", "{}", "[1]", "true", "NaN", "[" * 5000, "1" * 5000, '"x"', '{"size": 16}')
        case = draw(changed_document(metadata, words))
        metadata, detail, note = case.content, f"metadata {case.how}", case.note
    elif how in ("labels", "face"):
        case = draw(changed_document({how: json.loads(metadata[how])}))
        text = json.dumps(case.content.get(how, case.content))
        metadata, detail = metadata | {how: text.encode("utf-8", "replace").decode()}, f"metadata {how}: inside"
        note = case.note
    else:
        detail = draw(st.sampled_from(("outputs", "weights nan", "input", "output name", "fixed batch", "output type")))
        if detail == "outputs":
            weights = np.ones((1, draw(st.sampled_from((1, 6, 8)))), np.float32)
            model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, "weights"))
            model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = weights.shape[1]
        elif detail == "weights nan":
            weights = np.full((1, 7), draw(st.sampled_from((np.nan, np.inf))), np.float32)
            model.graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, "weights"))
        elif detail == "input":
            model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = draw(st.sampled_from((1, 15, 17)))
        elif detail == "output name":
            model.graph.output[0].name = model.graph.node[-1].output[0] = "x"
        elif detail == "fixed batch":
            model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 5
        else:
            model.graph.node[-1].output[0] = "y"
            model.graph.node.append(helper.make_node("Cast", ["y"], ["probabilities"], to=7))
            model.graph.output[0].type.tensor_type.elem_type = 7
        detail = f"graph: {detail}"
    del model.metadata_props[:]
    helper.set_model_props(model, {str(key): str(value) for key, value in metadata.items()})
    return Case(detail, model.SerializeToString(), note)


def _open_onnx(case: Case, folder: Path) -> None:
    path = folder / "net.onnx"
    path.write_bytes(case.content)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        try:
            network = OnnxNetwork(path, "cpu")
        finally:
            # what rows of predict.py would stand among
            require(not printed.getvalue(), f"printed {printed.getvalue()!r:.80}")
    labels = list(network.labels)
    require(labels == _LABELS or _renamed(case, labels), f"labels {labels!r:.80}")
    require((network.face.size, network.face.color) == (SIDE, "grey"), f"face {network.face!r:.80}")
    margin = network.face.margin
    require(type(margin) in (int, float) and 0 <= margin <= 2, f"margin {margin!r:.40}")
    require(isinstance(network.name, str) and isinstance(network.drawn, bool), "name or drawn")
    for n in (2, 3):
        got = network(np.resize(_faces()[:, 0].numpy(), (n, SIDE, SIDE)))
        require(got.shape == (n, 7) and got.dtype == np.float32, f"probabilities {got.dtype} {got.shape}")
        sums = got.sum(1)
        require(np.isfinite(got).all() and np.allclose(sums, 1, atol=1e-3), f"probabilities that sum to {sums}")


FAMILIES = [
    Family("checkpoint", lambda: [Case("whole", _checkpoint_bytes())], _checkpoints, _open_checkpoint),
    Family("safetensors", lambda: [Case("whole", _weights())], _weight_files, _open_weights),
    Family("onnx", lambda: [Case("whole", _onnx().SerializeToString())], _onnx_files, _open_onnx),
]
