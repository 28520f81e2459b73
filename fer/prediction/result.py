"""What a predictor gives for a picture: its faces, and what can be made of them."""

import base64
from collections.abc import Iterable, Sequence
from html import escape
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from fer.data.inputs import Picture, to_array
from fer.data.source import FaceFormat
from fer.errors import InputError
from fer.prediction.detection import crop_upright, cut_upright
from fer.prediction.face import Face, colored
from fer.prediction.pictures import Pictures
from fer.prediction.table import columns, face_cells
from fer.system.words import amount

if TYPE_CHECKING:
    import pandas

#: In a notebook: longer side of the picture in pixels, and most faces with bars.
_SHOWN_PIXELS, _SHOWN_FACES = 640, 12


class Result(list[Face]):
    """The faces of a picture, a list from left to right, with the picture that they lie in.

    Pixels of a file are read again when they are needed, not kept. An array is not copied.

    Attributes:
        path: the file or address; None of an array.
        frame: the number of the frame in its video, from 0; None of a photo.
        time: seconds of this frame after the first; None of a photo.
        error: why the picture could not be read, and so has no faces; None where it could.
        labels: the classes.
    """

    def __init__(
        self,
        faces: Iterable[Face] = (),
        source: Picture | None = None,
        labels: Sequence[str] = (),
        path: str | None = None,
        frame: int | None = None,
        time: float | None = None,
        error: str | None = None,
    ) -> None:
        super().__init__(faces)
        self._source, self.labels, self.path = source, tuple(labels), path
        self.frame, self.time, self.error = frame, time, error

    def __repr__(self) -> str:
        place = {"path": self.path, "frame": self.frame, "time": self.time, "error": self.error}
        said = "".join(f", {name}={value!r}" for name, value in place.items() if value is not None)
        return f"Result({super().__repr__()}{said})"

    @property
    def picture(self) -> np.ndarray:
        """The picture, uint8 (h, w, 3) RGB.

        Raises:
            InputError: it could not be read, or can't be read any more.
        """
        if self.error is not None or self._source is None:
            raise InputError(self.error or "a result without a picture")
        return colored(to_array(self._source, self.path))

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain lists, texts and numbers, as JSON takes them; boxes are in pixels."""
        return {
            "path": self.path, "frame": self.frame, "time": self.time, "error": self.error,
            "faces": [_plain(face) for face in self],
        }  # fmt: skip

    def to_pandas(self) -> "pandas.DataFrame":
        """Return a row a face, with the columns and digits of predictions.csv."""
        # here, as no prediction needs it
        import pandas

        place = {"file": self.path, "frame": self.frame, "time": self.time, "error": self.error}
        return pandas.DataFrame([place | face_cells(face) for face in self], columns=list(columns(self.labels)))

    def plot(self) -> np.ndarray:
        """Return the annotated picture uint8 (h, w, 3) RGB, as predict.py draws it; a small one is enlarged."""
        return self._drawn()

    def _drawn(self, numbers: Sequence[int] = ()) -> np.ndarray:
        return Pictures(Path(), None, anonymize=False).annotate(self.picture, self, numbers)

    def save_crops(self, folder: str | Path) -> list[Path]:
        """Write each face as folder/LABEL/NAME_NUMBER.png, turned upright, in its own pixels; return the files.

        NAME is that of the file, or picture; faces without a label are in folder/unnamed. No file is replaced.

        Raises:
            InputError: as `picture`; the folder is a file, or can't be written in.
        """
        picture, paths = self.picture, []
        stem = Path(self.path).stem[:50] if self.path else "picture"
        name = _plain_name(stem if self.frame is None else f"{stem}_{self.frame}")
        for face in self:
            crop = cut_upright(picture, face.box, face.angle)
            if crop is None:
                continue
            place = Path(folder, _plain_name(face.label or "unnamed"))
            content = cv2.imencode(".png", cv2.cvtColor(crop, cv2.COLOR_RGB2BGR))[1].tobytes()
            try:
                place.mkdir(parents=True, exist_ok=True)
                paths.append(_write_new(place, name, content))
            except OSError as error:
                raise InputError(
                    f"{folder}: no crops can be written there ({error.strerror}); give another folder"
                ) from error
        return paths

    def cut(self, face: FaceFormat) -> np.ndarray:
        """Return the faces as a network of a format takes them, uint8 (n, *face.shape).

        Raises:
            InputError: as `picture`.
        """
        # grey stays grey, which is not what comes of grey, red, green and blue alike
        picture = to_array(self._source, self.path) if self._source is not None and self.error is None else self.picture
        crops = [crop_upright(picture, each.box, each.angle, face) for each in self]
        found = [crop for crop in crops if crop is not None]
        return np.stack(found) if found else np.zeros((0, *face.shape), np.uint8)

    def _repr_html_(self) -> str:
        """Show the annotated picture and bars of the probabilities in a notebook."""
        title = escape(self.path or "picture") + ("" if self.frame is None else f", frame {self.frame}")
        try:
            picture = self._drawn(range(1, len(self) + 1))
        except InputError as error:
            return f"<p>{escape(str(error))}</p>"
        scale = min(1.0, _SHOWN_PIXELS / max(picture.shape[:2]))
        size = tuple(max(1, round(side * scale)) for side in picture.shape[1::-1])
        small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA) if scale < 1 else picture
        content = base64.b64encode(cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR))[1].tobytes()).decode()
        cards = "".join(_card(number, face) for number, face in enumerate(self[:_SHOWN_FACES], 1))
        faces = amount(len(self), "face")
        if len(self) > _SHOWN_FACES:
            faces += f", the first {_SHOWN_FACES} below"
        return (
            f'<div><p><b>{title}</b>: {faces}</p><img src="data:image/jpeg;base64,{content}" alt="{title}, {faces}" '
            'style="max-width:100%">'
            f'<div style="display:flex;flex-wrap:wrap;gap:16px">{cards}</div></div>'
        )


def _card(number: int, face: Face) -> str:
    bars = "".join(
        f'<div style="display:flex;align-items:center;gap:6px"><span style="width:80px">{escape(name)}</span>'
        f'<span style="width:120px;background:#8884"><span style="display:block;height:10px;width:{share:.1%};'
        f'background:#4a90d9"></span></span><span>{share:.1%}</span></div>'
        for name, share in face.probabilities.items()
    )
    said = f"{escape(face.label)} {face.confidence:.2f}" if face.label else "not sure"
    return f'<div style="font-size:12px;line-height:1.4"><b>{number}: {said}</b>{bars}</div>'


def _plain(face: Face) -> dict[str, Any]:
    x, y, width, height = map(float, face.box)
    plain = {
        "box": {"x": x, "y": y, "width": width, "height": height}, "label": face.label,
        "confidence": face.confidence, "score": face.score, "angle": face.angle,
        "probabilities": dict(face.probabilities),
    }  # fmt: skip
    return plain if face.embedding is None else plain | {"embedding": face.embedding.tolist()}


def _plain_name(text: str) -> str:
    return "".join(c if c.isprintable() and c not in '/\\:*?"<>|' else "_" for c in text)[:60].strip(". ") or "_"


def _write_new(folder: Path, name: str, content: bytes) -> Path:
    """Write a file NAME_1.png, NAME_2.png, ...: the first that is not there."""
    for number in count(1):
        path = folder / f"{name}_{number}.png"
        try:
            with open(path, "xb") as file:
                try:
                    file.write(content)
                    file.flush()
                except OSError:
                    path.unlink()
                    raise
            return path
        except FileExistsError:
            continue
    raise AssertionError("numbers do not end")
