"""Predictor: from a picture to its faces, each with a box and the probabilities of the expressions."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fer.darknet.formats.weights import weights_of
from fer.data.photos import PhotoLimits, crop_box, fit, read_photo
from fer.errors import InputError
from fer.prediction.backends import Network, open_network
from fer.prediction.detectors import MIN_SIZE, Finder, Found, open_finder
from fer.prediction.frame_search import search_frames

Picture = np.ndarray | str | Path

#: Most faces in one batch of the network.
BATCH_FACES = 32


@dataclass(frozen=True, slots=True)
class Face:
    """A face and its expression.

    ``box`` is x, y, width, height in pixels of the picture, x to the right and y down, as the detector gave it;
    ``probabilities`` add up to 1 over the classes (not those of a Darknet detector, see `torch_engine.predictor`);
    ``label`` is the likeliest class, None where its probability ``confidence`` is below the predictor's
    ``min_confidence``; ``score`` is the detector's own (see `fer.prediction.detectors.Found`).
    """

    box: tuple[float, float, float, float]
    probabilities: dict[str, float]
    label: str | None
    confidence: float
    score: float | None


class Predictor:
    """Finds and names the faces of pictures; cropped, turned grey and resized as the network's data were prepared.

    A picture is a file, or an array uint8 (h, w) grey, (h, w, 3) RGB or (h, w, 4) RGBA, whose alpha is dropped. Several
    threads may call one predictor.

    >>> predictor = Predictor.load("fer2013_vgg9", faces="whole")
    >>> [face.box for face in predictor(np.zeros((90, 60, 3), np.uint8))]
    [(0.0, 0.0, 60.0, 90.0)]
    """

    def __init__(self, network: Network, finder: Finder, min_confidence: float = 0.0) -> None:
        self.network, self.finder, self.min_confidence = network, finder, min_confidence
        self._threads = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="faces")

    @classmethod
    def load(
        cls,
        ckpt: str | Path,
        faces: str = "haar",
        faces_model: str | None = None,
        device: str = "auto",
        min_confidence: float | None = None,
        min_size: int = MIN_SIZE,
        cfg: str | Path | None = None,
        names: str | Path | None = None,
    ) -> "Predictor":
        """Open a .ckpt, .safetensors or .onnx file or a shipped network's name, and a face detector; or .weights.

        ``faces`` is haar, yunet (``faces_model`` is its file) or whole; ``min_size`` the smallest face looked for, in
        pixels; ``device`` is the network's: auto, cpu, cuda, ... ``min_confidence`` is 0 by default.

        Darknet's .weights, or the .ckpt saved with them, belong to the files ``cfg`` and ``names``, by default those
        beside them; their ``min_confidence`` is 0.25 by default. A Darknet detector finds the faces itself.

        Raises:
            InputError: a file that is missing or not ours, an unknown detector or device.
        """
        if Path(ckpt := weights_of(str(ckpt))).suffix.lower() == ".weights":
            # here, so that a .onnx file is run without torch
            from fer.darknet.torch_engine.predictor import load

            files = (Path(file) if file else None for file in (cfg, names))
            return load(Path(ckpt), *files, faces, faces_model, device, min_confidence, min_size)
        return cls(open_network(ckpt, device), open_finder(faces, faces_model, min_size), min_confidence or 0.0)

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes, in the order of every face's probabilities."""
        return self.network.labels

    def __call__(self, picture: Picture) -> list[Face]:
        """Return the faces of a picture; none where no face is found.

        Raises:
            InputError: a file that can't be read, or an array that is no picture.
        """
        return self.batch([picture])[0]

    def batch(self, pictures: Sequence[Picture]) -> list[list[Face]]:
        """Return the faces of each picture: read and searched in parallel, named together in batches of the network.

        Where many pictures are given, ``cv2.setNumThreads(1)`` beforehand leaves the cores to these threads.

        Raises:
            InputError: a file that can't be read, or an array that is no picture.
        """
        return self._name(list(self._threads.map(self._search, pictures)))

    def frames(self, frames: Sequence[np.ndarray], every: int = 1) -> list[list[Face]]:
        """Return the faces of each of some consecutive frames of a video, arrays as in a call, named together.

        Each ``every``-th frame and the last are searched whole, those between only near the faces of the two around.

        Raises:
            InputError: an array that is no picture.
        """
        frames = [colored(to_array(frame)) for frame in frames]
        found = search_frames(self.finder, frames, every, self._threads.map)
        return self._name(list(self._threads.map(self._crop, frames, found)))

    def _search(self, picture: Picture) -> tuple[list[Found], list[np.ndarray]]:
        picture = to_array(picture)
        return self._crop(picture, self.finder(colored(picture)))

    def _crop(self, picture: np.ndarray, faces: Sequence[Found]) -> tuple[list[Found], list[np.ndarray]]:
        """Return the faces that lie in a picture, and their crops as the network takes them."""
        height, width = picture.shape[:2]
        found, crops = [], []
        for face in faces:
            # a detector's box may reach over the edge; nothing of it in the picture is no face
            if (crop := crop_box(width, height, face.box, self.network.face.margin)) is not None:
                x0, y0, x1, y1 = crop
                found.append(face)
                crops.append(fit(picture[y0:y1, x0:x1], self.network.face))
        return found, crops

    def _name(self, pictures: Sequence[tuple[list[Found], list[np.ndarray]]]) -> list[list[Face]]:
        crops = [crop for _, crops in pictures for crop in crops]
        chunks = [np.stack(crops[at : at + BATCH_FACES]) for at in range(0, len(crops), BATCH_FACES)]
        rows = iter([row for chunk in chunks for row in self.network(chunk).tolist()])
        return [[self._face(face, next(rows)) for face in found] for found, _ in pictures]

    def _face(self, found: Found, row: list[float]) -> Face:
        probabilities = dict(zip(self.labels, row, strict=True))
        label = max(probabilities, key=probabilities.get)
        confidence = probabilities[label]
        return Face(
            found.box, probabilities, label if confidence >= self.min_confidence else None, confidence, found.score
        )


def colored(picture: np.ndarray) -> np.ndarray:
    """Return a picture (h, w) or (h, w, 3) as (h, w, 3)."""
    return picture if picture.ndim == 3 else np.dstack([picture] * 3)


def to_array(picture: Picture) -> np.ndarray:
    """Return a picture, a file or an array, as uint8 (h, w) or (h, w, 3).

    Raises:
        InputError: a file that can't be read, or an array that is no picture.
    """
    if isinstance(picture, str | Path):
        photo = read_photo(str(picture), "rgb", PhotoLimits())
        if isinstance(photo, str):
            raise InputError(f"{picture}: {photo}")
        return photo
    if not isinstance(picture, np.ndarray):
        raise InputError(f"picture: a path or a numpy array expected, got {type(picture).__name__}")
    if picture.dtype != np.uint8:
        raise InputError(f"picture: uint8 0..255 expected, got {picture.dtype}; scale it and use .astype('uint8')")
    if picture.ndim not in (2, 3) or picture.shape[2:] not in ((), (3,), (4,)) or not picture.size:
        raise InputError(f"picture: shape (h, w), (h, w, 3) or (h, w, 4) expected, got {picture.shape}")
    return np.ascontiguousarray(picture[:, :, :3] if picture.ndim == 3 else picture)
