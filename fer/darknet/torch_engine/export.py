"""A Darknet net as ONNX for other programs: a classifier as any other network, a detector with its boxes decoded."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fer.darknet.formats.run_folder import read_facts
from fer.darknet.formats.weights import Net, open_configured_net
from fer.darknet.torch_engine.inference import letterboxes, open_fused, report_labels
from fer.darknet.torch_engine.modules import Softmax
from fer.darknet.torch_engine.network import DarknetNetwork
from fer.darknet.torch_engine.predictor import face_format
from fer.deployment.export import TOLERANCE
from fer.deployment.onnx import checked, mib, write_onnx
from fer.errors import InputError
from fer.system.files import claiming


class _Logits(nn.Module):
    """A [softmax] without the softmax."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, x: Tensor) -> Tensor:
        return x / self.temperature


class DeployedClassifier(nn.Module):
    """Faces uint8 (N, C, size, size) to probabilities and logits, float32 (N, classes); C is 1 for grey, else 3."""

    def __init__(self, network: DarknetNetwork) -> None:
        super().__init__()
        self.network = network
        for index, module in enumerate(network.layers):
            if isinstance(module, Softmax):
                network.layers[index] = _Logits(module.temperature)

    def forward(self, faces: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.network((faces.float() / 255).expand(-1, 3, -1, -1))
        return logits.softmax(1), logits


class DeployedDetector(nn.Module):
    """Photos uint8 (N, 3, height, width) RGB to what is in them, of all heads, cell by cell.

    float32 boxes (N, all, 4): the centre's x and y, width and height as fractions of the net's input; objectness
    (N, all); probabilities (N, all, classes) of each class if there is a face.
    """

    def __init__(self, network: DarknetNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, photos: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows = self.network(photos.float() / 255)
        return rows[..., :4], rows[..., 4], rows[..., 5:]


def export(keys: dict[str, Any], data: dict[str, Any] | None, options: dict[str, Any]) -> Path:
    """Write the weights file ``keys["ckpt"]`` as ONNX, equal to torch under onnxruntime within 1e-4; return the file.

    ``options`` are those of conf/darknet, of which cfg and names are used.

    Raises:
        InputError: a file is missing or does not fit, another format than onnx, onnxruntime missing, other outputs.
    """
    weights = Path(keys["ckpt"])
    for key, wrong in (("format", keys["format"] != "onnx"), ("temperature", keys["temperature"]), ("data", data)):
        if wrong:
            option = f"{key}={keys[key]}" if key in keys else "data="
            raise InputError(f"{option}: the .weights of a Darknet net are exported with format=onnx alone")
    net = open_configured_net(keys["ckpt"], options)
    out = checked(keys["out"] or weights.with_suffix(".onnx"), ".onnx")
    module, example, input_name, output_names = _deployed(net)

    def check(session: Any) -> None:
        for n in (1, 3):
            inputs = _random(n, *example.shape[1:])
            with torch.inference_mode():
                expected = [values.numpy() for values in module(inputs)]
            for name, wanted, actual in zip(
                output_names, expected, session.run(None, {input_name: inputs.numpy()}), strict=True
            ):
                if wanted.shape != actual.shape or not np.allclose(actual, wanted, rtol=TOLERANCE, atol=TOLERANCE):
                    raise InputError(f"{out} under onnxruntime: {name} differ from torch's by more than {TOLERANCE}")

    with claiming(Path(out)):
        write_onnx(module, out, example, input_name, output_names, _describe(net), check)
    print(f"wrote {out} ({mib(out.stat().st_size)})")
    return out


def _deployed(net: Net) -> tuple[nn.Module, Tensor, str, tuple[str, ...]]:
    network = open_fused(net)
    if net.task == "detector":
        width, height, _ = network.size
        module, output_names = DeployedDetector(network), ("boxes", "objectness", "probabilities")
        return module.eval(), _random(2, 3, height, width), "photos", output_names
    face = face_format(net)
    channels = 1 if face.color == "grey" else 3
    example = _random(2, channels, face.size, face.size)
    return DeployedClassifier(network).eval(), example, "faces", ("probabilities", "logits")


def _describe(net: Net) -> dict[str, str]:
    """Return what the file says of itself: of a classifier the same as `fer.models.checkpoint.describe`."""
    facts = read_facts(net.weights)
    metadata = {
        "project": "fer-lightning", "name": net.cfg.stem, "labels": json.dumps(report_labels(net)),
        "data": facts.get("data", "unknown"), "drawn": json.dumps(bool(facts.get("drawn", False))),
    }  # fmt: skip
    if net.task == "classifier":
        face = face_format(net)
        return metadata | {"face": json.dumps({"size": face.size, "color": face.color, "margin": face.margin})}
    size = [int(net.sections[0].options[key]) for key in ("width", "height")]
    return metadata | {"task": "detector", "size": json.dumps(size), "letterbox": json.dumps(letterboxes(net))}


def _random(*shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(shape[0]).integers(0, 256, shape, np.uint8))
