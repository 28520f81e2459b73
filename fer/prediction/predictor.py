"""FacePredictor: a face detector finds the faces of a picture, and a network names each of them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fer.data.inputs import to_array
from fer.prediction.backends import Network, adapted, open_network
from fer.prediction.base import BasePredictor
from fer.prediction.detection import Detection, FaceDetector, crop_upright
from fer.prediction.detectors import MIN_SIZE, open_detector
from fer.prediction.face import Face, colored
from fer.prediction.frame_search import search_frames
from fer.prediction.own_detector import OwnCallable

#: Most faces in one batch of the network.
BATCH_FACES = 32

#: The faces that lie in a picture, and their crops as the network takes them.
Crops = tuple[list[Detection], list[np.ndarray]]


class FacePredictor(BasePredictor):
    """Finds faces with ``detector`` and names them; cropped, turned grey and resized as the network's data were."""

    network: Network

    def __init__(self, network: Network, detector: FaceDetector, min_confidence: float = 0.0) -> None:
        super().__init__(network, min_confidence)
        self.detector = detector
        self._embeds = False

    @property
    def found_by(self) -> str:  # type: ignore[override]
        return self.detector.name

    @classmethod
    def load(
        cls,
        ckpt: str | Path,
        faces: str | OwnCallable = "auto",
        faces_model: str | None = None,
        device: str = "auto",
        min_confidence: float | None = None,
        min_size: int = MIN_SIZE,
        margin: float | None = None,
        tta: bool = False,
        classes: Sequence[str] | None = None,
    ) -> "FacePredictor":
        """Open a .ckpt, .safetensors or .onnx file or a shipped network's name, and a face detector.

        The arguments are those of `fer.api.open_predictor`.

        Raises:
            InputError: a file that is missing or not ours, an unknown detector or device.
        """
        network = adapted(open_network(ckpt, device, tta), margin, classes)
        return cls(network, open_detector(faces, faces_model, min_size), min_confidence or 0.0)

    def require_embedding(self) -> None:
        # a black face shows whether there are any, once
        if not self._embeds:
            self.network.embed(np.zeros((1, *self.network.face.shape), np.uint8))
            self._embeds = True

    def frames(self, frames: Sequence[np.ndarray], every: int = 1, embed: bool = False) -> list[list[Face]]:
        self._require_open()
        frames = [colored(to_array(frame)) for frame in frames]
        detections = search_frames(self.detector, frames, every, self._map)
        return self._name(self._map(self._crop, frames, detections), embed)

    def _find(self, pictures: Sequence[np.ndarray], embed: bool) -> list[list[Face]]:
        return self._name(self._map(self._search, pictures), embed)

    def _search(self, picture: np.ndarray) -> Crops:
        return self._crop(picture, self.detector(colored(picture)))

    def _crop(self, picture: np.ndarray, detections: Sequence[Detection]) -> Crops:
        inside, crops = [], []
        for detection in detections:
            # nothing of it in the picture is no face
            if (crop := crop_upright(picture, detection.box, detection.angle, self.network.face)) is not None:
                inside.append(detection)
                crops.append(crop)
        return inside, crops

    def _name(self, pictures: Sequence[Crops], embed: bool) -> list[list[Face]]:
        crops = [crop for _, crops in pictures for crop in crops]
        chunks = [np.stack(crops[at : at + BATCH_FACES]) for at in range(0, len(crops), BATCH_FACES)]
        rows: list[tuple[Sequence[float], np.ndarray | None]] = []
        for chunk in chunks:
            if embed:
                probabilities, embeddings = self.network.embed(chunk)
                rows += zip(probabilities.tolist(), embeddings, strict=True)
            else:
                rows += [(row, None) for row in self.network(chunk).tolist()]
        named = iter(rows)
        return [[self._face(detection, *next(named)) for detection in detections] for detections, _ in pictures]
