"""Darknet nets as `fer.prediction` takes them: a detector is a whole predictor, a classifier a Network."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fer.darknet.formats.photo_folder import read_mark
from fer.darknet.formats.run_folder import read_facts
from fer.darknet.formats.weights import Net, open_net
from fer.darknet.torch_engine.inference import Boxes, Detector, Prepared, open_on, report_labels, square_side, suppress
from fer.data.inputs import to_array
from fer.data.photos import channels_first, crop_box
from fer.data.source import FaceFormat
from fer.errors import InputError
from fer.prediction.backends import adapted
from fer.prediction.base import BasePredictor
from fer.prediction.detection import Detection
from fer.prediction.detectors import open_detector
from fer.prediction.face import Face, colored
from fer.prediction.own_detector import OwnCallable
from fer.prediction.predictor import FacePredictor

#: Confidence below which a box is no face, where the user gives none: the programs' own.
THRESHOLD = 0.25
#: Most photos in one batch of a detector.
BATCH_PHOTOS = 8


def load(
    weights: Path, cfg: Path | None, names: Path | None, faces: str | OwnCallable, faces_model: str | None, device: str,
    min_confidence: float | None, min_size: int, margin: float | None = None, tta: bool = False,
    classes: Sequence[str] | None = None,
) -> BasePredictor:  # fmt: skip
    """Return the predictor of a .weights file, as `fer.api.open_predictor` says.

    Raises:
        InputError: as `fer.darknet.formats.weights.open_net`, or a face detector beside a net that finds faces itself.
    """
    net = open_net(weights, cfg, names)
    if min_confidence is None:
        min_confidence = THRESHOLD
    if tta:
        raise InputError(f"tta=true: not for Darknet nets, as {weights} is")
    if net.task == "classifier":
        network = adapted(DarknetClassifier(net, device), margin, classes)
        return FacePredictor(network, open_detector(faces, faces_model, min_size), min_confidence)
    for key, value in (("margin", margin), ("classes", classes)):
        if value is not None:
            raise InputError(f"{key}={value}: {weights} is a detector and takes whole pictures; leave it out")
    if faces != "auto" or faces_model:
        raise InputError(f"faces={faces}: {weights} is a detector and finds the faces itself; leave it out")
    return DetectorPredictor(net, device, min_confidence)


def _no_embeddings(weights: Path) -> InputError:
    return InputError(f"embed=true: {weights} is a Darknet net, which gives no embeddings; leave it out")


def face_format(net: Net) -> FaceFormat:
    """Return what a face for a classifier must look like.

    Trained on faces that prepare.py cropped, as its run folder tells, it takes them in the same colour and with the
    same margin; else, as a net of whole photos, in RGB and without margin.

    Raises:
        InputError: the net's input is not square.
    """
    folder = read_facts(net.weights).get("folder")
    mark = (read_mark(Path(folder)) if folder else None) or {}
    prepared: dict[str, Any] = mark["made_by"] if mark.get("crop") == "face" else {"color": "rgb", "margin": 0.0}
    return FaceFormat(square_side(net), prepared["color"], prepared["margin"])


class DarknetClassifier:
    """A classifier as a `Network` of `fer.prediction`; a face that is not square is squeezed, unlike in the program.

    Raises:
        InputError: a net that is not supported or not square, or no such device.
    """

    def __init__(self, net: Net, device: str = "auto") -> None:
        self.face = face_format(net)
        self._network, self._device = open_on(net, device)
        self.labels, self.name, self.device = report_labels(net), net.cfg.stem, str(self._device)
        self._weights = net.weights
        self.drawn = bool(read_facts(net.weights).get("drawn", False))

    def __call__(self, faces: np.ndarray) -> np.ndarray:
        photos = torch.from_numpy(channels_first(faces)).to(self._device).expand(-1, 3, -1, -1)
        with torch.inference_mode():
            return self._network(photos.float() / 255).cpu().numpy()

    def embed(self, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        raise _no_embeddings(self._weights)


class DetectorPredictor(BasePredictor):
    """Finds and names faces in one pass of a detector, which gives them boxes, expressions and the certainty of both.

    A face's probabilities are the net's confidences, objectness times the class's own probability: each in 0..1, no
    more than its ``score``, the objectness; they need not add up to 1. A face whose best is not over ``min_confidence``
    is left out, as is one that overlaps a surer face, of whatever expression, by an IoU over 0.45.

    Raises:
        InputError: as `fer.darknet.torch_engine.inference.Detector`.
    """

    def __init__(self, net: Net, device: str = "auto", min_confidence: float = THRESHOLD) -> None:
        self._detector, self._weights = Detector(net, device), net.weights
        super().__init__(self._detector, min_confidence)

    def require_embedding(self) -> None:
        raise _no_embeddings(self._weights)

    def frames(self, frames: Sequence[np.ndarray], every: int = 1, embed: bool = False) -> list[list[Face]]:
        """Return the faces of each frame; all are searched whole, as nothing is saved near a face."""
        self._require_open()
        return self._find([to_array(frame) for frame in frames], embed)

    def _find(self, pictures: Sequence[np.ndarray], embed: bool) -> list[list[Face]]:
        if embed:
            self.require_embedding()
        predictions: list[list[Face]] = []
        for start in range(0, len(pictures), BATCH_PHOTOS):
            prepared = self._map(self._prepare, pictures[start : start + BATCH_PHOTOS])
            for boxes, (_, _, size) in zip(self._detector.detect(prepared, self.min_confidence), prepared, strict=True):
                predictions.append(self._faces(boxes, *size))
        return predictions

    def _prepare(self, picture: np.ndarray) -> Prepared:
        return self._detector.prepare(colored(picture))

    def _faces(self, boxes: Boxes, width: int, height: int) -> list[Face]:
        faces = []
        for row in suppress(boxes.box, boxes.confidence.amax(1)).tolist():
            x, y, w, h = boxes.box[row].tolist()
            x0, y0, x1, y1 = max(0.0, x), max(0.0, y), min(float(width), x + w), min(float(height), y + h)
            detection = Detection((x0, y0, x1 - x0, y1 - y0), boxes.objectness[row].item())
            # a net that has photos on grey may see something in the border; less than half a pixel is no face either
            if crop_box(width, height, detection.box) is not None:
                faces.append(self._face(detection, boxes.confidence[row].tolist()))
        return sorted(faces, key=lambda face: face.box)
