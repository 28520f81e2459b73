"""YuNet (Wu, Peng and Yu 2023), a small network for faces at any angle: its file, and two ways to run it."""

import hashlib
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fer.errors import InputError
from fer.prediction.detection import Detection, Lent, left_to_right, shrink

#: The file of OpenCV's zoo, at a fixed commit of it, and what it is known by.
FILE = "face_detection_yunet_2023mar.onnx"
ADDRESS = (
    "https://media.githubusercontent.com/media/opencv/opencv_zoo/82b38c8f98e7b52aa171400f3e4c722352d0669f/"
    f"models/face_detection_yunet/{FILE}"
)
SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
#: Seconds that a server may take to answer.
_PATIENCE = 15

#: Confidence from which something is a face, and the intersection over union at which two boxes are one face.
_SCORE, _SAME = 0.7, 0.3
#: Of its 2023 file: one cell for so many pixels.
_STRIDES = (8, 16, 32)
#: A face whose eyes are this many degrees off the horizontal is turned upright for the network that names it.
_TURNED = 15


def cached() -> Path:
    """Return where the fetched file is kept, in the user's cache; it need not be there."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("fer-lightning", appauthor=False), FILE)


def at_hand() -> Path | None:
    """Return the fetched file, None where there is none or not this one."""
    path = cached()
    try:
        return path if hashlib.sha256(path.read_bytes()).hexdigest() == SHA256 else None
    except OSError:
        return None


def fetch(address: str = ADDRESS, sha256: str = SHA256, path: Path | None = None) -> Path:
    """Return the file, fetched into the user's cache unless it is there; other contents are not kept.

    Raises:
        InputError: it cannot be fetched or kept, or what came is another file; it says how to put it there by hand.
    """
    path = path or cached()
    if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == sha256:
        return path
    # here, as it is rarely wanted
    import pooch
    import requests

    pooch.get_logger().setLevel("ERROR")
    try:
        downloader = pooch.HTTPDownloader(timeout=_PATIENCE)
        pooch.retrieve(address, f"sha256:{sha256}", path.name, path.parent, downloader=downloader)
    except (requests.RequestException, OSError, ValueError) as error:
        reason = "what came is another file" if type(error) is ValueError else _reason(error)
        raise InputError(
            f"faces=yunet: {FILE} could not be fetched ({reason}); put it by hand at {path} (sha256 {sha256[:12]}..., "
            "from github.com/opencv/opencv_zoo, models/face_detection_yunet) or give faces.model=FILE.onnx"
        ) from error
    return path


def _reason(error: Exception) -> str:
    import requests

    if isinstance(error, requests.HTTPError) and error.response is not None:
        return f"the server said {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return "the server does not answer"
    return "no connection" if isinstance(error, requests.ConnectionError) else " ".join(str(error).split())[:120]


class YuNetDetector:
    """YuNet, run by OpenCV, or by onnxruntime where OpenCV refuses the file and it is installed.

    Its boxes are a fifth narrower than high; they are widened to squares, as the faces of FER2013 and AffectNet are
    square and `fit` would stretch them.

    Raises:
        InputError: no such file, or none that can be run.
    """

    name = "YuNet"

    def __init__(self, model: str, min_size: int) -> None:
        if not Path(model).is_file():
            raise InputError(f"faces.model={model}: no such file; faces=yunet without it fetches one")
        self._min_size = min_size
        level = cv2.utils.logging.getLogLevel()
        # what OpenCV prints of a file that it refuses is said by our error
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        try:
            self._networks = Lent(lambda: _OpenCV(model))
            self(np.zeros((64, 64, 3), np.uint8))
        except (cv2.error, SystemError) as error:
            refused = error
            self._networks = Lent(lambda: _onnxruntime(model, refused))
            try:
                self(np.zeros((64, 64, 3), np.uint8))
            except Exception as second:  # onnxruntime's exceptions have no base class of their own
                raise _unusable(model, error) from second
        finally:
            cv2.utils.logging.setLogLevel(level)

    def __call__(self, picture: np.ndarray, min_size: float | None = None, quick: bool = False) -> list[Detection]:
        small, scale = shrink(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        with self._networks.one() as network:
            rows = network(small)
        faces = []
        for x, y, width, height, *points, score in (rows / [*[scale] * 14, 1.0]).tolist():
            side = max(width, height)
            if side >= max(min_size or 0, self._min_size):
                angle = math.degrees(math.atan2(points[3] - points[1], points[2] - points[0]))
                box = (x + (width - side) / 2, y + (height - side) / 2, side, side)
                faces.append(Detection(box, score, angle if abs(angle) >= _TURNED else 0.0))
        return left_to_right(faces)


class _OpenCV:
    """YuNet as OpenCV runs it: BGR picture in, rows (n, 15) of box, eyes, nose, corners of the mouth and score out."""

    def __init__(self, model: str) -> None:
        self._network = cv2.FaceDetectorYN.create(model, "", (320, 320), _SCORE, _SAME)

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        self._network.setInputSize(picture.shape[1::-1])
        rows = self._network.detect(picture)[1]
        return np.reshape([] if rows is None else rows, (-1, 15)).astype(float)


class _OnnxRuntime:
    """The same by onnxruntime, for a file whose input may have any size."""

    def __init__(self, session: Any) -> None:
        self._session = session
        (given,) = session.get_inputs()
        self._input, shape = given.name, given.shape
        self._names = [f"{kind}_{stride}" for kind in ("cls", "obj", "bbox", "kps") for stride in _STRIDES]
        if isinstance(shape[2], int) or isinstance(shape[3], int):
            raise ValueError("its input has one size alone")

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        height, width = (math.ceil(side / 32) * 32 for side in picture.shape[:2])
        padded = np.zeros((height, width, 3), np.float32)
        padded[: picture.shape[0], : picture.shape[1]] = picture
        outputs = self._session.run(self._names, {self._input: padded.transpose(2, 0, 1)[None]})
        named = dict(zip(self._names, outputs, strict=True))
        rows = np.concatenate([self._rows(named, stride, width // stride) for stride in _STRIDES])
        kept = cv2.dnn.NMSBoxes(rows[:, :4].tolist(), rows[:, 14].tolist(), _SCORE, _SAME)
        return rows[np.asarray(kept, int).reshape(-1)]

    @staticmethod
    def _rows(named: dict[str, np.ndarray], stride: int, columns: int) -> np.ndarray:
        """Return the rows of one grid, as OpenCV's FaceDetectorYN decodes them: places are relative to a cell."""
        cls, obj, box, points = (named[f"{kind}_{stride}"][0].astype(float) for kind in ("cls", "obj", "bbox", "kps"))
        score = np.sqrt(cls.clip(0, 1) * obj.clip(0, 1)).reshape(-1)
        likely = np.flatnonzero(score >= _SCORE)
        cell = np.stack([likely % columns, likely // columns], 1)
        centre, size = (cell + box[likely, :2]) * stride, np.exp(box[likely, 2:4]) * stride
        places = (points[likely].reshape(-1, 5, 2) + cell[:, None]) * stride
        return np.concatenate([centre - size / 2, size, places.reshape(-1, 10), score[likely, None]], 1)


def _onnxruntime(model: str, refused: Exception) -> _OnnxRuntime:
    from fer.prediction.backends import open_session

    try:
        return _OnnxRuntime(open_session(model))
    except (InputError, ValueError) as error:
        raise _unusable(model, refused) from error


def _unusable(model: str, refused: Exception) -> InputError:
    # of nested errors the innermost says why
    reason = " ".join(str(refused).rpartition("error: ")[2].split()).rstrip("> ")[:160]
    try:
        import onnxruntime  # noqa: F401

        other = "nor does onnxruntime run it as YuNet's"
    except ImportError:
        other = "pip install onnxruntime runs files of dynamic shapes"
    return InputError(f"faces.model={model}: OpenCV does not run it ({reason}), {other}; YuNet's is {FILE}")
