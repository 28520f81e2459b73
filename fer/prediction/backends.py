"""What names a face: a checkpoint or weight file run by torch, or a .onnx file run by onnxruntime without torch."""

import json
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fer.data.photos import channels_first
from fer.data.source import FaceFormat
from fer.engines import ONNX, is_darknet, suffix_of
from fer.errors import InputError
from fer.models.pretrained import locate


class NetworkInfo(Protocol):
    """What is known of a network that names faces."""

    #: The classes, in the order of the probabilities.
    labels: tuple[str, ...]
    #: What a face must look like.
    face: FaceFormat
    #: The architecture, e.g. "vgg_small".
    name: str
    #: Whether it was trained on the drawn sample, so that it says nothing about real faces.
    drawn: bool


class Network(NetworkInfo, Protocol):
    """Names faces: called with uint8 (N, *face.shape), it returns float32 probabilities (N, classes)."""

    def __call__(self, faces: np.ndarray) -> np.ndarray: ...


def open_network(ckpt: str | Path, device: str = "auto") -> Network:
    """Open a .ckpt or .safetensors file or a shipped network's name with torch, or a .onnx file with onnxruntime.

    ``device`` is auto, cpu, cuda, cuda:1, ...; auto takes a GPU where there is one. A .onnx file needs neither torch
    nor Lightning. Darknet's .weights, of which some find the faces themselves, are for `Predictor.load`.

    Raises:
        InputError: no such file or name, not one of this project, or a device that is not there.
    """
    if is_darknet(ckpt):
        raise InputError(f"{ckpt}: Darknet weights are for predict.py source=... ckpt={ckpt} and Predictor.load")
    path = locate(ckpt)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    return OnnxNetwork(path, device) if suffix_of(path) == ONNX else TorchNetwork(path, device)


class TorchNetwork:
    """A checkpoint on a torch device: softmax over the logits of the centre crop, as in validation."""

    def __init__(self, ckpt: Path, device: str = "auto") -> None:
        # here, so that a .onnx file is run without them
        import torch

        from fer.models.checkpoint import load_checkpoint
        from fer.system.device import to_device

        self._torch, self.model = torch, load_checkpoint(ckpt)
        _, self._device = to_device(self.model.net, device)
        self.labels, self.name = tuple(self.model.labels), self.model.name
        self.face, self.drawn = self.model.face, self.model.drawn

    def __call__(self, faces: np.ndarray) -> np.ndarray:
        torch = self._torch
        # inference_mode is a setting of the calling thread, so it is entered in each call
        with torch.inference_mode():
            logits = self.model(torch.from_numpy(channels_first(faces)).to(self._device))
            return logits.float().softmax(1).cpu().numpy()


class OnnxNetwork:
    """A file that export.py wrote, run by onnxruntime; cropping and scaling are inside it."""

    def __init__(self, ckpt: Path, device: str = "auto") -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise InputError(f"{ckpt}: needs onnxruntime: pip install onnxruntime") from error
        providers = _providers(device, onnxruntime.get_available_providers())
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors only: what is wrong with a file is said by our exception
        try:
            self._session = onnxruntime.InferenceSession(str(ckpt), options, providers=providers)
        except Exception as error:  # onnxruntime's exceptions have no base class of their own
            raise InputError(f"{ckpt}: not a readable .onnx file") from error
        meta = self._session.get_modelmeta().custom_metadata_map
        if meta.get("task") == "detector":
            raise InputError(f"{ckpt}: a detector for other programs; here its .weights do the same")
        try:
            if meta["project"] != "fer-lightning":
                raise ValueError(meta["project"])
            self.labels, self.name = tuple(map(str, json.loads(meta["labels"]))), meta["name"]
            self.face, self.drawn = FaceFormat(**json.loads(meta["face"])), json.loads(meta["drawn"]) is True
            (faces,) = self._session.get_inputs()
            channels, outputs = 1 if self.face.color == "grey" else 3, {o.name for o in self._session.get_outputs()}
            wanted = ["faces", "tensor(uint8)", [channels, self.face.size, self.face.size]]
            if [faces.name, faces.type, faces.shape[1:]] != wanted or "probabilities" not in outputs:
                raise ValueError(wanted)
        except (KeyError, ValueError, TypeError) as error:
            raise InputError(
                f"{ckpt}: not a .onnx file that export.py of this project wrote (labels, face format or input missing)"
            ) from error

    def __call__(self, faces: np.ndarray) -> np.ndarray:
        return self._session.run(["probabilities"], {"faces": channels_first(faces)})[0]


def _providers(device: str, available: list[str]) -> list[Any]:
    kind, _, number = device.partition(":")
    cuda = "CUDAExecutionProvider"
    if kind == "cpu" or (kind == "auto" and cuda not in available):
        return ["CPUExecutionProvider"]
    if kind not in ("auto", "cuda") or cuda not in available:
        raise InputError(f"device={device}: this onnxruntime has no such device; device=cpu always works")
    return [(cuda, {"device_id": number or "0"}), "CPUExecutionProvider"]
