"""What names a face: a checkpoint or weight file run by torch, or a .onnx file run by onnxruntime without torch."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from fer.data.photos import channels_first
from fer.data.source import FaceFormat
from fer.engines import ONNX, is_darknet, suffix_of
from fer.errors import InputError
from fer.labels import canonical, labels_from_file
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
    #: Where it runs: cpu, cuda:0, ...
    device: str


class Network(NetworkInfo, Protocol):
    """Names faces: called with uint8 (N, *face.shape), it returns float32 probabilities (N, classes).

    ``embed`` returns also what its last layer was given, float32 (N, D); InputError where that can't be had.
    """

    def __call__(self, faces: np.ndarray) -> np.ndarray: ...

    def embed(self, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...


def open_network(ckpt: str | Path, device: str = "auto", tta: bool = False) -> Network:
    """Open a .ckpt or .safetensors file or a shipped network's name with torch, or a .onnx file with onnxruntime.

    ``device`` is auto, cpu, cuda, cuda:1, ...; auto takes a GPU where there is one. A .onnx file needs neither torch
    nor Lightning. ``tta`` averages the logits of ten crops, by torch alone. Darknet's .weights, of which some find the
    faces themselves, are for `Predictor.load`.

    Raises:
        InputError: no such file or name, not one of this project, or a device that is not there.
    """
    if is_darknet(ckpt):
        raise InputError(f"{ckpt}: Darknet weights are for predict.py source=... ckpt={ckpt} and Predictor.load")
    path = locate(ckpt)
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if suffix_of(path) != ONNX:
        return TorchNetwork(path, device, tta)
    if tta:
        raise InputError(f"tta=true: {path} takes the centre crop alone; give the .ckpt that it was exported from")
    return OnnxNetwork(path, device)


def adapted(network: Network, margin: float | None = None, classes: Sequence[str] | None = None) -> Network:
    """Return a network that takes faces with another ``margin`` and tells only some ``classes`` apart; None: its own.

    Raises:
        InputError: not a margin of 0 to 2, or not two or more of the network's classes.
    """
    if margin is not None:
        if isinstance(margin, bool) or not isinstance(margin, int | float) or not 0 <= margin <= 2:
            raise InputError(f"margin={margin!s:.40}: not a fraction of the box between 0 and 2")
        network.face = replace(network.face, margin=float(margin))
    return network if classes is None else ChosenClasses(network, classes)


class ChosenClasses:
    """A network of which some classes are masked: the probabilities of ``classes`` add up to 1 in its own order.

    As if the logits of the others were minus infinity, as in ``evaluate.py classes=common``. Spellings such as anger
    for Angry are known.

    Raises:
        InputError: a class that the network has not, or fewer than two.
    """

    def __init__(self, network: Network, classes: Sequence[str]) -> None:
        self._network = network
        wanted = []
        for name in [classes] if isinstance(classes, str) else classes:
            meant = [label for label in network.labels if (canonical(label) or label) == (canonical(name) or name)]
            if not meant:
                raise InputError(f"classes: {name!s:.40} is not one of {', '.join(network.labels)}")
            wanted += meant
        self._index = [i for i, label in enumerate(network.labels) if label in wanted]
        if len(self._index) < 2:
            raise InputError(f"classes={wanted}: give two or more of {', '.join(network.labels)}")
        self.labels = tuple(network.labels[i] for i in self._index)
        self.face, self.name, self.drawn, self.device = network.face, network.name, network.drawn, network.device

    def __call__(self, faces: np.ndarray) -> np.ndarray:
        return self._masked(self._network(faces))

    def embed(self, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        probabilities, embeddings = self._network.embed(faces)
        return self._masked(probabilities), embeddings

    def _masked(self, probabilities: np.ndarray) -> np.ndarray:
        # in float64, and never 0, as what is left may be all but impossible
        kept = np.maximum(probabilities[:, self._index].astype(np.float64), np.finfo(np.float32).tiny)
        return (kept / kept.sum(1, keepdims=True)).astype(np.float32)


class TorchNetwork:
    """A checkpoint on a torch device: softmax over the logits of the centre crop, as in validation, or of ten."""

    def __init__(self, ckpt: Path, device: str = "auto", tta: bool = False) -> None:
        # here, so that a .onnx file is run without them
        import torch

        from fer.models.checkpoint import load_checkpoint
        from fer.models.embedding import Embedder
        from fer.system.device import to_device

        self._torch, self.model, self._ckpt, self._tta = torch, load_checkpoint(ckpt), ckpt, tta
        _, self._device = to_device(self.model.net, device)
        self.labels, self.name = tuple(self.model.labels), self.model.name
        self.face, self.drawn, self.device = self.model.face, self.model.drawn, str(self._device)
        self._embedder = Embedder(self.model.net)

    def __call__(self, faces: np.ndarray) -> np.ndarray:
        # inference_mode is a setting of the calling thread, so it is entered in each call
        with self._torch.inference_mode():
            return self._probabilities(self._logits(faces))

    def embed(self, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        with self._torch.inference_mode():
            logits, embeddings = self._embedder(lambda: self._logits(faces))
            # of ten crops the mean, as of their logits
            embeddings = embeddings.view(len(faces), -1, embeddings.shape[1]).mean(1)
            return self._probabilities(logits), embeddings.float().cpu().numpy()

    def _logits(self, faces: np.ndarray) -> Any:
        return self.model(self._torch.from_numpy(channels_first(faces)).to(self._device), average_ten_crop=self._tta)

    def _probabilities(self, logits: Any) -> np.ndarray:
        return require_probabilities(logits.float().softmax(1).cpu().numpy(), len(logits), self.labels, self._ckpt)


class OnnxNetwork:
    """A file that export.py wrote, run by onnxruntime; cropping and scaling are inside it."""

    def __init__(self, ckpt: Path, device: str = "auto") -> None:
        self._session = open_session(ckpt, device)
        self._ckpt = ckpt
        self.labels, self.name, self.face, self.drawn = read_onnx(self._session, ckpt)
        self.device = "cuda" if "CUDA" in self._session.get_providers()[0] else "cpu"
        # what a file says of its outputs is no promise: one black face shows what they are
        self(np.zeros((1, *self.face.shape), np.uint8))

    def __call__(self, faces: np.ndarray) -> np.ndarray:
        try:
            (found,) = self._session.run(["probabilities"], {"faces": channels_first(faces)})
        except Exception as error:  # onnxruntime's exceptions have no base class of their own
            raise InputError(f"{self._ckpt}: onnxruntime cannot run it; export it again") from error
        return require_probabilities(found, len(faces), self.labels, self._ckpt)

    def embed(self, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        raise InputError(
            f"embed=true: {self._ckpt} gives probabilities alone; give the .ckpt that it was exported from"
        )


def open_session(path: str | Path, device: str = "cpu") -> Any:
    """Return an ONNX file as a session of onnxruntime; ``device`` as for `open_network`.

    Raises:
        InputError: onnxruntime is missing, there is no such device, or the file is not a readable one.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(f"{path}: needs onnxruntime: pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: what is wrong with a file is said by our exception
    cause = None
    for providers in _providers(device, onnxruntime.get_available_providers()):
        try:
            # onnxruntime's own way of trying the CPU after another device prints what it stumbled over
            return onnxruntime.InferenceSession(str(path), options, providers=providers, enable_fallback=0)
        except Exception as error:  # onnxruntime's exceptions have no base class of their own
            cause = error
    on = " on this device; device=cpu always works" if device.startswith("cuda") else ""
    raise InputError(f"{path}: not a readable .onnx file{on}") from cause


def read_onnx(session: Any, ckpt: str | Path) -> tuple[tuple[str, ...], str, FaceFormat, bool]:
    """Return labels, name, face format and whether drawn, as the metadata of an onnxruntime session's file say.

    Raises:
        InputError: naming what is missing or does not fit the file's input and outputs.
    """
    try:
        meta = session.get_modelmeta().custom_metadata_map
    except UnicodeDecodeError as error:
        raise InputError(f"{ckpt}: a damaged .onnx file, its metadata are no text ({error}); copy it again") from error
    if meta.get("task") == "detector":
        raise InputError(f"{ckpt}: a detector for other programs; here its .weights do the same")
    try:
        for key in ("project", "labels", "name", "face", "drawn"):
            if key not in meta:
                raise ValueError(f"no {key}")
        if meta["project"] != "fer-lightning":
            raise ValueError(f"project={meta['project']!r:.40}")
        labels, face, drawn = (json.loads(meta[key]) for key in ("labels", "face", "drawn"))
        labels, face = tuple(labels_from_file(labels)), FaceFormat.from_file(face)
        if type(drawn) is not bool:
            raise ValueError(f"drawn={drawn!r:.40}")
        inputs = {i.name: [i.type, i.shape[1:]] for i in session.get_inputs()}
        if inputs != {"faces": ["tensor(uint8)", [1 if face.color == "grey" else 3, face.size, face.size]]}:
            raise ValueError(f"inputs {inputs!r:.120}")
        outputs = {o.name: [o.type, len(o.shape), o.shape[-1:]] for o in session.get_outputs()}
        if outputs.get("probabilities") != ["tensor(float)", 2, [len(labels)]]:
            raise ValueError(f"{len(labels)} labels, outputs {outputs!r:.120}")
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{ckpt}: not a .onnx file that export.py of this project wrote ({reason})") from error
    return labels, meta["name"], face, drawn


def require_probabilities(found: Any, n: int, labels: Sequence[str], ckpt: str | Path) -> np.ndarray:
    """Return what a network gave for n faces if it is probabilities; InputError where it is not."""
    shape = (n, len(labels))
    if not isinstance(found, np.ndarray) or found.dtype != np.float32 or found.shape != shape:
        what = f"{found.dtype} {found.shape}" if isinstance(found, np.ndarray) else type(found).__name__
        raise InputError(f"{ckpt}: its probabilities of {n} faces are {what}, not float32 {shape}; export it again")
    if not (np.isfinite(found).all() and (found >= 0).all() and np.allclose(found.sum(1), 1, atol=1e-2)):
        raise InputError(f"{ckpt}: what it gives are no probabilities: NaN, below 0 or not of sum 1; export it again")
    return found


def _providers(device: str, available: list[str]) -> list[list[Any]]:
    """Return what to open a file with, to be tried in this order."""
    kind, _, number = device.partition(":")
    cuda, cpu = "CUDAExecutionProvider", "CPUExecutionProvider"
    if kind == "cpu" or (kind == "auto" and cuda not in available):
        return [[cpu]]
    if kind not in ("auto", "cuda") or cuda not in available:
        raise InputError(f"device={device}: this onnxruntime has no such device; device=cpu always works")
    gpu = [(cuda, {"device_id": number or "0"}), cpu]
    return [gpu, [cpu]] if kind == "auto" else [gpu]
