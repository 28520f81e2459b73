"""What the page of `fer.demo` answers: an uploaded photo or video in, HTML with all its pictures inside out."""

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import cv2
import numpy as np

from fer.data.boxes import Box
from fer.data.photos import read_photo
from fer.data.source import FaceFormat, PhotoLimits
from fer.demo.uploads import Upload
from fer.errors import InputError
from fer.prediction.detection import crop_upright
from fer.prediction.drawing import draw_faces, hide_faces
from fer.prediction.sources import Medium, looks_like_a_photo
from fer.prediction.tracking import Tracker
from fer.prediction.video import Video

if TYPE_CHECKING:
    from fer.prediction.base import BasePredictor
    from fer.prediction.face import Face
    from fer.prediction.gradcam import Explainer

#: What is looked at of a video, in seconds, and how many of its frames a second.
MAX_SECONDS, FRAMES_PER_SECOND = 10, 10
#: Longer side of an answer's picture and side of a face in it, in pixels, and most faces described one by one.
PICTURE_PIXELS, FACE_PIXELS, MAX_FACES = 1280, 200, 24

_LIMITS = PhotoLimits(max_pixels=50_000_000)
#: A video's frames that go through the network together, and the weight of earlier frames as in conf/predict.yaml.
_BATCH, _SMOOTH = 8, 0.7

CSS = """
#answer {line-height: 1.4}
#answer p {margin: 8px 0}
.fer-whole {display: block; width: 100%; max-height: 34vh; object-fit: contain; border-radius: 8px;
  background: var(--background-fill-secondary)}
.fer-error {padding: 12px; border-left: 4px solid #c00; font-weight: 600; overflow-wrap: anywhere}
.fer-faces {display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 320px), 1fr)); gap: 12px}
.fer-face {display: flex; gap: 12px; padding: 10px; border: 1px solid var(--border-color-primary); border-radius: 8px}
.fer-face figure {width: 35%; margin: 0; font-size: .75rem}
.fer-face figure img {width: 100%; margin-bottom: 4px; border-radius: 4px}
.fer-face > div {flex: 1; min-width: 0}
.fer-face h3 {margin: 0 0 4px; font-size: .95rem; font-weight: 600}
.fer-bars {width: 100%; border-collapse: collapse; font-size: .8rem; line-height: 1.35}
.fer-bars th {width: 1%; padding: 0 8px 0 0; text-align: left; font-weight: 400}
.fer-bars td {padding: 0}
.fer-bars td:last-child {width: 1%; padding-left: 8px; text-align: right; white-space: nowrap}
.fer-bars i {display: block; height: 10px; min-width: 1px; border-radius: 2px; background: var(--color-accent)}
"""


@dataclass(slots=True)
class _SeenFace:
    """A face as it is shown and as the network takes it, its width in pixels, its probabilities summed over frames."""

    picture: np.ndarray
    crop: np.ndarray
    width: float
    total: np.ndarray
    frames: int = 1


class Answerer:
    """Turns uploads into answers, without heat maps where ``explainer`` is None; passing files lie in ``folder``."""

    def __init__(self, predictor: "BasePredictor", explainer: "Explainer | None", folder: Path) -> None:
        self._predictor, self._explainer, self._folder = predictor, explainer, folder

    def __call__(self, upload: Upload, min_confidence: float, hide: bool) -> str:
        """Return HTML, also where the upload can't be read; no file is left.

        Below the probability ``min_confidence`` no expression is named; ``hide`` makes the faces unrecognisable.
        """
        try:
            with TemporaryDirectory(dir=self._folder) as folder:
                path = Path(folder) / "upload"
                path.write_bytes(upload.content)
                # by content, as a name may say anything
                if looks_like_a_photo(str(path)):
                    return self._photo(path, min_confidence, hide)
                try:
                    return self._video(path, min_confidence, hide)
                except InputError as error:
                    raise InputError(f"not a photo, and {error}") from error
        except InputError as error:
            return f'<p class="fer-error" role="alert">{escape(f"{upload.name}: {error}")}</p>'

    def _photo(self, path: Path, min_confidence: float, hide: bool) -> str:
        photo = read_photo(str(path), "rgb", _LIMITS)
        if isinstance(photo, str):
            raise InputError(photo)
        faces = self._predictor(photo)
        drawn, crops = self._mark(photo, faces, range(1, len(faces) + 1), self._table(faces), min_confidence, hide)
        alt = f"The photo, {_count(len(faces))} marked"
        whole = f'<img class="fer-whole" src="{_address("jpeg", drawn)}" alt="{alt}">'
        return whole + self._describe(crops, min_confidence, "photo")

    def _video(self, path: Path, min_confidence: float, hide: bool) -> str:
        tracker, answer, writer = Tracker(_SMOOTH), path.with_name("answer.webm"), None
        faces_seen: dict[int, _SeenFace] = {}
        with Video(Medium(str(path), "video"), limits=_LIMITS) as video:
            fps = video.fps or 25.0
            step = max(1, round(fps / FRAMES_PER_SECOND))
            pictures = _sample(video, step, round(MAX_SECONDS * fps))
            while batch := list(islice(pictures, _BATCH)):
                for picture, faces in zip(batch, self._predictor.batch(batch), strict=True):
                    numbers, smoothed = tracker.update([face.box for face in faces], self._table(faces))
                    drawn, crops = self._mark(
                        picture, faces, numbers, smoothed, min_confidence, hide, tracker.missing()
                    )
                    _add(faces_seen, crops)
                    if writer is None:
                        # VP8 is what every browser plays and OpenCV's wheel can write
                        code, size = cv2.VideoWriter.fourcc(*"VP80"), drawn.shape[1::-1]
                        writer = cv2.VideoWriter(str(answer), code, fps / step, size)
                    writer.write(cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))
            cut = video.read > round(MAX_SECONDS * fps)
        if writer is None:
            raise InputError("no frame can be read")
        writer.release()
        content = base64.b64encode(answer.read_bytes()).decode()
        whole = (
            f'<video class="fer-whole" src="data:video/webm;base64,{content}" controls autoplay loop muted '
            f'aria-label="The video, {_count(len(faces_seen))} marked"></video>'
        )
        if cut:
            whole += f"<p>Only the first {MAX_SECONDS} seconds were looked at.</p>"
        return whole + self._describe(faces_seen, min_confidence, "video")

    def _mark(
        self, picture: np.ndarray, faces: Sequence["Face"], numbers: Sequence[int], table: np.ndarray,
        min_confidence: float, hide: bool, missing: Sequence[Box] = (),
    ) -> tuple[np.ndarray, dict[int, _SeenFace]]:  # fmt: skip
        """Return a picture with its faces marked, and each face cut out; ``table`` (faces, classes) is named."""
        boxes, labels, crops = [face.box for face in faces], [], {}
        shown = hide_faces(picture, [*boxes, *missing]) if hide else picture
        takes = self._predictor.network.face
        for face, number, row, single in zip(faces, numbers, table, self._table(faces), strict=True):
            labels.append(f"{number} {self._verdict(row, min_confidence)}")
            card = crop_upright(shown, face.box, face.angle, FaceFormat(FACE_PIXELS, "rgb", takes.margin))
            crop = crop_upright(picture, face.box, face.angle, takes)
            assert card is not None and crop is not None  # the predictor gives no face outside of the picture
            crops[number] = _SeenFace(card, crop, face.box[2], single)
        return _shrink(draw_faces(shown, boxes, labels)), crops

    def _table(self, faces: Sequence["Face"]) -> np.ndarray:
        """Return the probabilities of faces as (faces, classes)."""
        return np.array([list(face.probabilities.values()) for face in faces]).reshape(-1, len(self._predictor.labels))

    def _verdict(self, row: np.ndarray, min_confidence: float) -> str:
        return f"{self._predictor.labels[row.argmax()]} {row.max():.0%}" if row.max() >= min_confidence else "not sure"

    def _describe(self, faces_seen: dict[int, _SeenFace], min_confidence: float, kind: str) -> str:
        """Return the faces one by one, each with its heat map and bars; those seen longest come first."""
        if not faces_seen:
            return f'<p role="status">No face was found in this {kind}.</p>'
        chosen = sorted(faces_seen.items(), key=lambda item: -item[1].frames)[:MAX_FACES]
        rows = [seen.total / seen.frames for _, seen in chosen]
        pictures, caption = [seen.picture for _, seen in chosen], ""
        if self._explainer:
            from fer.prediction.gradcam import overlay

            names = [self._predictor.labels[row.argmax()] for row in rows]
            heat, _ = self._explainer.heat(np.stack([seen.crop for _, seen in chosen]), names)
            pictures = [overlay(picture, heat_map) for picture, heat_map in zip(pictures, heat, strict=True)]
            caption = "<figcaption>Coloured: what spoke for {}</figcaption>"
        cards = []
        for (number, _), row, picture in zip(chosen, rows, pictures, strict=True):
            best = escape(self._predictor.labels[row.argmax()])
            bars = "".join(
                f'<tr><th scope="row">{escape(label)}</th><td><i style="width:{share:.1%}"></i></td>'
                f"<td>{share:.1%}</td></tr>"
                for label, share in zip(self._predictor.labels, row, strict=True)
            )
            alt = f"Heat map of face {number}" if caption else f"Face {number}"
            cards.append(
                f'<section class="fer-face"><figure><img src="{_address("png", picture)}" alt="{alt}">'
                f"{caption.format(best)}</figure>"
                f"<div><h3>Face {number}: {escape(self._verdict(row, min_confidence))}</h3>"
                f'<table class="fer-bars">{bars}</table></div></section>'
            )
        counted = _count(len(faces_seen)) + (
            f", the {MAX_FACES} seen longest below" if len(faces_seen) > MAX_FACES else ""
        )
        return f'<p role="status">{counted}</p><div class="fer-faces">{"".join(cards)}</div>'


def _add(faces_seen: dict[int, _SeenFace], crops: dict[int, _SeenFace]) -> None:
    """Add a frame's faces to those of earlier frames; of each the widest picture is kept."""
    for number, new in crops.items():
        if (old := faces_seen.get(number)) is not None:
            new.total, new.frames = new.total + old.total, old.frames + 1
            if old.width >= new.width:
                new.picture, new.crop, new.width = old.picture, old.crop, old.width
        faces_seen[number] = new


def _sample(video: Video, step: int, end: int) -> Iterator[np.ndarray]:
    for frame in video:
        if frame.index >= end:
            return
        if frame.index % step == 0:
            yield _shrink(frame.picture)


def _shrink(picture: np.ndarray) -> np.ndarray:
    scale = PICTURE_PIXELS / max(picture.shape[:2])
    if scale >= 1:
        return picture
    # a strip stays at least a pixel wide
    size = tuple(max(1, round(scale * side)) for side in picture.shape[1::-1])
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def _address(kind: str, picture: np.ndarray) -> str:
    content = cv2.imencode(f".{kind}", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1]
    return f"data:image/{kind};base64,{base64.b64encode(content.tobytes()).decode()}"


def _count(faces: int) -> str:
    return f"{faces} face{'' if faces == 1 else 's'}"
