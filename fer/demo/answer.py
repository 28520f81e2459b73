"""What the page of `fer.demo` answers: an uploaded photo or video in, HTML with all its pictures inside out."""

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import cv2
import numpy as np

from fer.data.photos import read_photo
from fer.data.source import FaceFormat, PhotoLimits
from fer.demo.uploads import Upload
from fer.errors import InputError
from fer.labels import colors
from fer.prediction.detection import crop_upright
from fer.prediction.drawing import draw_faces, hide_faces
from fer.prediction.sources import Medium, looks_like_a_photo
from fer.prediction.table import Rows, face_cells
from fer.prediction.tracking import Tracker
from fer.prediction.video import Video
from fer.prediction.video_writer import VideoWriter
from fer.system.words import amount

if TYPE_CHECKING:
    from fer.prediction.base import BasePredictor
    from fer.prediction.face import Face
    from fer.prediction.gradcam import Explainer, Explanation

#: What is looked at of a video, in seconds, and how many of its frames a second.
MAX_SECONDS, FRAMES_PER_SECOND = 10, 10
#: Longer side of an answer's picture and side of a face in it, in pixels, and most faces described one by one.
PICTURE_PIXELS, FACE_PIXELS, MAX_FACES = 1280, 200, 24
#: In a window narrower than this a photo is shown that was annotated at NARROW_PIXELS, so that its labels are readable.
NARROW_WINDOW, NARROW_PIXELS = 640, 480

_LIMITS = PhotoLimits(max_pixels=50_000_000)
#: A video's frames that go through the network together, and the weight of earlier frames as in conf/predict.yaml.
_BATCH, _SMOOTH = 8, 0.7
#: The colour of faces that are not named.
_UNSURE = (255, 255, 255)

CSS = """
#answer {line-height: 1.4}
#answer p {margin: 8px 0}
#answer .fer-name {margin: 0 0 6px; overflow-wrap: anywhere}
.fer-whole {display: block; width: 100%; max-height: 60vh; object-fit: contain; border-radius: 8px;
  background: var(--background-fill-secondary)}
.fer-error {padding: 12px; border-left: 4px solid #c00; font-weight: 600; overflow-wrap: anywhere}
.fer-save {display: flex; flex-wrap: wrap; gap: 4px 20px}
.fer-save a {color: var(--link-text-color); text-decoration: underline}
.fer-faces {display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 320px), 1fr)); gap: 12px}
.fer-face {display: flex; gap: 12px; padding: 10px; border: 1px solid var(--border-color-primary); border-radius: 8px;
  border-left-width: 8px}
.fer-face figure {width: 35%; margin: 0}
.fer-face figure img {width: 100%; border-radius: 4px}
#answer .fer-carries {margin: 6px 0 0; font-size: .75rem}
.fer-face > div {flex: 1; min-width: 0}
.fer-face h3 {margin: 0 0 4px; font-size: .95rem; font-weight: 600}
.fer-bars {width: 100%; border-collapse: collapse; font-size: .8rem; line-height: 1.35}
.fer-bars th {width: 1%; padding: 0 8px 0 0; text-align: left; font-weight: 400}
.fer-bars td {padding: 0}
.fer-bars td:last-child {width: 1%; padding-left: 8px; text-align: right; white-space: nowrap}
.fer-bars i {display: block; height: 10px; min-width: 1px; border-radius: 2px}
"""

#: What is said where nothing was found, after what else could find it.
_TRY = """try a larger or sharper picture of it, seen from the front with both eyes uncovered, and lit evenly. For a
picture that is nothing but a face choose to take it whole."""


@dataclass(slots=True)
class _SeenFace:
    """A face as it is shown and as the network takes it, its width in pixels, its probabilities summed over frames."""

    picture: np.ndarray
    crop: np.ndarray
    width: float
    total: np.ndarray
    frames: int = 1


@dataclass(frozen=True, slots=True)
class _Asked:
    """What an answer is worked out with: see `Answerer.__call__`."""

    predictor: "BasePredictor"
    name: str
    min_confidence: float
    hide: bool


class Answerer:
    """Turns uploads into answers, without heat maps where ``explainer`` is None; passing files lie in ``folder``.

    ``predictors`` have one network, by the names of what finds their faces.
    """

    def __init__(self, predictors: "Mapping[str, BasePredictor]", explainer: "Explainer | None", folder: Path) -> None:
        self._predictors, self._explainer, self._folder = predictors, explainer, folder
        self.finders = list(predictors)
        self._labels = predictors[self.finders[0]].labels
        self._colors = colors(self._labels)

    def __call__(self, upload: Upload, min_confidence: float, hide: bool, finder: str) -> str:
        """Return HTML, also where the upload can't be read; no file is left.

        Below the probability ``min_confidence`` no expression is named; ``hide`` makes the faces unrecognisable;
        ``finder`` is one of ``finders``.
        """
        asked = _Asked(self._predictors[finder], upload.name, min_confidence, hide)
        try:
            with TemporaryDirectory(dir=self._folder) as folder:
                path = Path(folder) / "upload"
                path.write_bytes(upload.content)
                # by content, as a name may say anything
                if looks_like_a_photo(str(path)):
                    return self._photo(path, asked)
                try:
                    return self._video(path, asked)
                except InputError as error:
                    raise InputError(f"not a photo, and {error}") from error
        except InputError as error:
            return f'<p class="fer-error" role="alert">{escape(f"{upload.name}: {error}")}</p>'

    def _photo(self, path: Path, asked: _Asked) -> str:
        photo = read_photo(str(path), "rgb", _LIMITS)
        if isinstance(photo, str):
            raise InputError(photo)
        faces = [_renamed(face, np.array(list(face.probabilities.values())), asked) for face in asked.predictor(photo)]
        numbers = range(1, len(faces) + 1)
        shown = hide_faces(photo, [face.box for face in faces]) if asked.hide else photo
        with Rows(path.parent / "table", self._labels) as rows:
            for face in faces:
                rows.write(file=asked.name, **face_cells(face))
            if not faces:
                rows.write(file=asked.name)
        wide, narrow = (
            _address("jpeg", self._draw(shown, faces, numbers, pixels)) for pixels in (PICTURE_PIXELS, NARROW_PIXELS)
        )
        whole = (
            f'<picture><source media="(max-width: {NARROW_WINDOW}px)" srcset="{narrow}">'
            f'<img class="fer-whole" src="{wide}" alt="The photo, {amount(len(faces), "face")} marked"></picture>'
        )
        drawn = self._draw(shown, faces, numbers)
        # a JPEG has at most 65,500 pixels a side in OpenCV's library
        kind = "jpeg" if max(drawn.shape) <= 65_500 else "png"
        links = _save(asked.name, "photo", kind, _address(kind, drawn), path.parent / "table")
        return (
            _caption(asked.name, photo.shape) + whole + links
            + self._describe(self._cut(photo, shown, faces, numbers, asked), asked, "photo")
        )  # fmt: skip

    def _video(self, path: Path, asked: _Asked) -> str:
        tracker, answer = Tracker(_SMOOTH), path.with_name("answer.mp4")
        faces_seen: dict[int, _SeenFace] = {}
        table = path.parent / "table"
        with Video(Medium(str(path), "video"), limits=_LIMITS) as video, Rows(table, self._labels) as rows:
            fps = video.fps or 25.0
            step = max(1, round(fps / FRAMES_PER_SECOND))
            frames = _sample(video, step, round(MAX_SECONDS * fps))
            with VideoWriter(answer, fps / step) as writer:
                while batch := list(islice(frames, _BATCH)):
                    found = asked.predictor.frames([picture for _, _, picture in batch])
                    for (index, seconds, picture), faces in zip(batch, found, strict=True):
                        probabilities = np.array([list(face.probabilities.values()) for face in faces])
                        probabilities = probabilities.reshape(-1, len(self._labels))
                        numbers, smoothed = tracker.update([face.box for face in faces], probabilities)
                        hidden = [*(face.box for face in faces), *tracker.missing()]
                        shown = hide_faces(picture, hidden) if asked.hide else picture
                        _add(faces_seen, self._cut(picture, shown, faces, numbers, asked))
                        faces = [_renamed(face, row, asked) for face, row in zip(faces, smoothed, strict=True)]
                        scale = video.size[0] / picture.shape[1]
                        for number, face in zip(numbers, faces, strict=True):
                            x, y, w, h = face.box
                            own = replace(face, box=(scale * x, scale * y, scale * w, scale * h))
                            rows.write(
                                file=asked.name, frame=index, time=round(seconds, 3), track=number, **face_cells(own)
                            )
                        writer.write(self._draw(shown, faces, numbers), seconds)
            cut = video.read > round(MAX_SECONDS * fps)
            if not answer.exists():
                raise InputError("no frame can be read")
            if not rows.faces:
                rows.write(file=asked.name)
        content = f"data:video/mp4;base64,{base64.b64encode(answer.read_bytes()).decode()}"
        whole = (
            f'<video class="fer-whole" src="{content}" controls autoplay loop muted '
            f'aria-label="The video, {amount(len(faces_seen), "face")} marked"></video>'
        )
        if cut:
            whole += f"<p>Only the first {MAX_SECONDS} seconds were looked at.</p>"
        return (
            _caption(asked.name) + whole + _save(asked.name, "video", "mp4", content, table)
            + self._describe(faces_seen, asked, "video")
        )  # fmt: skip

    def _draw(
        self, shown: np.ndarray, faces: Sequence["Face"], numbers: Sequence[int], pixels: int | None = None
    ) -> np.ndarray:
        """Return a picture with its faces marked, its longer side ``pixels`` at most."""
        small = _shrink(shown, pixels) if pixels else shown
        scale = small.shape[1] / shown.shape[1]
        boxes = [(scale * x, scale * y, scale * w, scale * h) for x, y, w, h in (face.box for face in faces)]
        labels = [
            f"{number} {f'{face.label} {face.confidence:.0%}' if face.label else 'not sure'}"
            for number, face in zip(numbers, faces, strict=True)
        ]
        palette = [self._colors[face.label] if face.label else _UNSURE for face in faces]
        drawn = draw_faces(small, boxes, labels, palette, [face.angle for face in faces])
        # a strip may have been enlarged too much
        return _shrink(drawn, pixels) if pixels else drawn

    def _cut(
        self, picture: np.ndarray, shown: np.ndarray, faces: Sequence["Face"], numbers: Sequence[int], asked: _Asked
    ) -> dict[int, _SeenFace]:
        """Return each face cut out of a picture, and for the page of what may be shown of it."""
        takes, crops = asked.predictor.network.face, {}
        for number, face in zip(numbers, faces, strict=True):
            card = crop_upright(shown, face.box, face.angle, FaceFormat(FACE_PIXELS, "rgb", takes.margin))
            crop = crop_upright(picture, face.box, face.angle, takes)
            assert card is not None and crop is not None  # the predictor gives no face outside of the picture
            row = np.array(list(face.probabilities.values()))
            crops[number] = _SeenFace(card, crop, face.box[2], row)
        return crops

    def _verdict(self, row: np.ndarray, min_confidence: float) -> str:
        return f"{self._labels[row.argmax()]} {row.max():.0%}" if row.max() >= min_confidence else "not sure"

    def _describe(self, faces_seen: dict[int, _SeenFace], asked: _Asked, kind: str) -> str:
        """Return the faces one by one, each with its heat map and bars; those seen longest come first."""
        if not faces_seen:
            others = (
                "If there is one, choose another way to find it, or " if len(self.finders) > 1 else "If there is one, "
            )
            return f'<p role="status">No face was found in this {kind}. {others}{_TRY}</p>'
        chosen = sorted(faces_seen.items(), key=lambda item: -item[1].frames)[:MAX_FACES]
        rows = [seen.total / seen.frames for _, seen in chosen]
        pictures, captions = [seen.picture for _, seen in chosen], [""] * len(chosen)
        if self._explainer:
            from fer.prediction.gradcam import overlay

            names = [self._labels[row.argmax()] for row in rows]
            found = self._explainer.explain(np.stack([seen.crop for _, seen in chosen]), names)
            pictures = [overlay(picture, each.heat) for picture, each in zip(pictures, found, strict=True)]
            captions = [_carries(each) for each in found]
        cards = []
        for (number, _), row, picture, caption in zip(chosen, rows, pictures, captions, strict=True):
            bars = "".join(
                f'<tr><th scope="row">{escape(label)}</th>'
                f'<td><i style="width:{share:.1%};background:{_css(self._colors[label])}"></i></td>'
                f"<td>{share:.1%}</td></tr>"
                for label, share in zip(self._labels, row, strict=True)
            )
            alt = f"Heat map of face {number}" if caption else f"Face {number}"
            sure = row.max() >= asked.min_confidence
            edge = _css(self._colors[self._labels[row.argmax()]] if sure else _UNSURE)
            cards.append(
                f'<section class="fer-face" style="border-left-color:{edge}"><figure>'
                f'<img src="{_address("png", picture)}" alt="{alt}"></figure>'
                f"<div><h3>Face {number}: {escape(self._verdict(row, asked.min_confidence))}</h3>"
                f'<table class="fer-bars">{bars}</table>{caption}</div></section>'
            )
        counted = amount(len(faces_seen), "face") + (
            f", the {MAX_FACES} seen longest below" if len(faces_seen) > MAX_FACES else ""
        )
        return f'<p role="status">{counted}</p><div class="fer-faces">{"".join(cards)}</div>'


def _renamed(face: "Face", row: np.ndarray, asked: _Asked) -> "Face":
    """Return a face with the probabilities of a row (classes,), and a name where they are high enough."""
    labels, best = list(face.probabilities), int(row.argmax())
    return replace(
        face, probabilities=dict(zip(labels, row.tolist(), strict=True)), confidence=float(row[best]),
        label=labels[best] if row[best] >= asked.min_confidence else None,
    )  # fmt: skip


def _caption(name: str, shape: tuple[int, ...] | None = None) -> str:
    size = f", {shape[1]:,} x {shape[0]:,} pixels" if shape else ""
    return f'<p class="fer-name"><b>{escape(name)}</b>{size}</p>'


def _save(name: str, kind: str, suffix: str, address: str, table: Path) -> str:
    """Return links that save what was drawn, and the table in a folder, under names made of the upload's."""
    stem = escape(Path(name).stem or kind)
    rows = base64.b64encode((table / "predictions.csv").read_bytes()).decode()
    return (
        f'<p class="fer-save"><a href="{address}" download="{stem}-annotated.{suffix}">Save the annotated {kind}</a>'
        f'<a href="data:text/csv;base64,{rows}" download="{stem}.csv">Save the table (csv)</a></p>'
    )


def _carries(explanation: "Explanation") -> str:
    label = escape(explanation.label)
    if explanation.without is None:
        return f'<p class="fer-carries">Nothing in it speaks for {label}.</p>'
    return (
        f'<p class="fer-carries">Coloured is what spoke for {label}: {explanation.before:.0%} as it is, '
        f"{explanation.without:.0%} with that blurred, {explanation.elsewhere:.0%} with as much at random places.</p>"
    )


def _css(color: tuple[int, int, int]) -> str:
    return "#" + bytes(color).hex()


def _add(faces_seen: dict[int, _SeenFace], crops: dict[int, _SeenFace]) -> None:
    """Add a frame's faces to those of earlier frames; of each the widest picture is kept."""
    for number, new in crops.items():
        if (old := faces_seen.get(number)) is not None:
            new.total, new.frames = new.total + old.total, old.frames + 1
            if old.width >= new.width:
                new.picture, new.crop, new.width = old.picture, old.crop, old.width
        faces_seen[number] = new


def _sample(video: Video, step: int, end: int) -> Iterator[tuple[int, float, np.ndarray]]:
    for frame in video:
        if frame.index >= end:
            return
        if frame.index % step == 0:
            yield frame.index, frame.time, _shrink(frame.picture, PICTURE_PIXELS)


def _shrink(picture: np.ndarray, pixels: int) -> np.ndarray:
    scale = pixels / max(picture.shape[:2])
    if scale >= 1:
        return picture
    # a strip stays at least a pixel wide
    size = tuple(max(1, round(scale * side)) for side in picture.shape[1::-1])
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA)


def _address(kind: str, picture: np.ndarray) -> str:
    content = cv2.imencode(f".{kind}", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1]
    return f"data:image/{kind};base64,{base64.b64encode(content.tobytes()).decode()}"
