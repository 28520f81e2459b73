"""The pictures that predict.py writes: annotated photos, figures that explain a face, and the names of all of them."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from fer.prediction.detection import crop_upright
from fer.prediction.drawing import draw_named, hide_faces
from fer.prediction.face import Face
from fer.system.files import replacing
from fer.system.words import amount

if TYPE_CHECKING:
    from fer.prediction.gradcam import Explainer


class Pictures:
    """Draws the faces of pictures and writes them under ``out``; callable from several threads but for `new_name`."""

    def __init__(self, out: Path, explainer: "Explainer | None", anonymize: bool) -> None:
        self.out, self._explainer, self._anonymize = out, explainer, anonymize
        self._names: set[str] = set()
        self._carried: list[tuple[float, float, float]] = []

    def new_name(self, path: str) -> str:
        """Return a file name without suffix for what is drawn of a source: printable, not too long, used only once."""
        stem = Path(path).stem if "://" not in path else re.sub(r".*://([^/@]*@)?", "", path)
        stem = _printable(stem)
        name, number = stem, 1
        while name.casefold() in self._names:
            number += 1
            name = f"{stem}_{number}"
        self._names.add(name.casefold())
        return name

    def save(self, photo: np.ndarray, faces: Sequence[Face], name: str) -> None:
        """Write photos/NAME.jpg, the annotated photo."""
        picture = cv2.cvtColor(self.annotate(photo, faces), cv2.COLOR_RGB2BGR)
        # a JPEG has at most 65,500 pixels a side in OpenCV's library
        path = self.out / "photos" / f"{name}{'.jpg' if max(picture.shape) <= 65_500 else '.png'}"
        with replacing(path, sync=False) as temporary:
            # not imwrite, which says too little when the disk is full
            temporary.write_bytes(cv2.imencode(path.suffix, picture)[1].tobytes())

    def annotate(
        self, picture: np.ndarray, faces: Sequence[Face], numbers: Sequence[int] = (), missing: Sequence[Any] = ()
    ) -> np.ndarray:
        """Return a picture with the boxes and labels of its faces, which are hidden where the run is to.

        ``numbers`` are the faces' tracks, ``missing`` the boxes of tracks that the picture does not show.
        """
        if self._anonymize:
            picture = hide_faces(picture, [*(face.box for face in faces), *missing])
        return draw_named(picture, faces, numbers)

    def explain(self, picture: np.ndarray, face: Face, name: str) -> None:
        """Write explain/NAME-LABEL-LAYER.png, where the network saw the likeliest class; nothing without explainer.

        What the deletion test found goes into `carried`.
        """
        if self._explainer is None:
            return
        crop = crop_upright(picture, face.box, face.angle, self._explainer.face)
        if crop is None:
            return
        # here, as it needs torch
        from fer.prediction.gradcam import figure

        (explanation,) = self._explainer.explain(crop[None])
        shown = figure(crop, explanation, self._explainer.labels, name)
        path = self.out / "explain" / f"{name}-{_printable(explanation.label)}-{_printable(explanation.layer)}.png"
        with replacing(path, sync=False) as temporary:
            shown.savefig(temporary, dpi=100, format="png")
        if explanation.without is not None and explanation.elsewhere is not None:
            self._carried.append((explanation.before, explanation.without, explanation.elsewhere))

    def carried(self) -> str:
        """Return in a line how much the shown regions carry of the probabilities, "" where nothing was shown."""
        if not self._carried or self._explainer is None:
            return ""
        before, without, elsewhere = np.mean(self._carried, 0).tolist()
        faces = amount(len(self._carried), "face")
        return (
            f"explained: layer {self._explainer.layer}, {faces}: mean probability {before:.0%}; {without:.0%} with "
            f"what is shown blurred, {elsewhere:.0%} with as much at random places"
        )


def _printable(text: str) -> str:
    """Return a text as a part of a file name: printable, not too long and not empty."""
    return "".join(c if c.isprintable() and c not in '/\\:*?"<>|' else "_" for c in text).strip(". ")[:60] or "_"
