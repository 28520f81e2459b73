"""What every predictor is: pictures in, named faces out; and what the two kinds of them share."""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from fer.prediction.backends import NetworkInfo
from fer.prediction.detection import Detection
from fer.prediction.face import Face, Picture


class BasePredictor(ABC):
    """Finds and names the faces of pictures; several threads may call one predictor.

    A picture is a file, or an array uint8 (h, w) grey, (h, w, 3) RGB or (h, w, 4) RGBA, whose alpha is dropped.
    ``network`` is what names the faces; ``found_by`` says in words what finds them. Below the probability
    ``min_confidence`` a face has no label.
    """

    found_by: str = "found by the network itself"

    def __init__(self, network: NetworkInfo, min_confidence: float = 0.0) -> None:
        self.network, self.min_confidence = network, min_confidence
        self._threads = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="faces")

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

    @abstractmethod
    def batch(self, pictures: Sequence[Picture]) -> list[list[Face]]:
        """Return the faces of each picture: read and searched in parallel, named together in batches of the network.

        Where many pictures are given, ``cv2.setNumThreads(1)`` beforehand leaves the cores to these threads.

        Raises:
            InputError: a file that can't be read, or an array that is no picture.
        """

    @abstractmethod
    def frames(self, frames: Sequence[np.ndarray], every: int = 1) -> list[list[Face]]:
        """Return the faces of each of some consecutive frames of a video, arrays as in a call, named together.

        Each ``every``-th frame and the last are searched whole, those between perhaps only near the faces of the two
        around.

        Raises:
            InputError: an array that is no picture.
        """

    def _face(self, detection: Detection, probabilities: Sequence[float]) -> Face:
        """Return a detected face with its name, from its probabilities in the order of the labels."""
        best = max(range(len(self.labels)), key=probabilities.__getitem__)
        confidence = probabilities[best]
        return Face(
            box=detection.box,
            probabilities=dict(zip(self.labels, probabilities, strict=True)),
            label=self.labels[best] if confidence >= self.min_confidence else None,
            confidence=confidence,
            score=detection.score,
            angle=detection.angle,
        )
