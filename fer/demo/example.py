"""The page's example: a photo of faces that this program draws, so of nobody."""

import cv2
import numpy as np

from fer.data.synthetic.action_units import EXPRESSIONS
from fer.data.synthetic.face import Face, draw_face
from fer.demo.uploads import Upload

#: Its key among the uploads; those of others are random and longer.
KEY = "example"

#: AffectNet's codes of Happy, Surprise and Anger, with the seeds of the persons who show them.
_PEOPLE = ((1, 11), (3, 12), (6, 13))


def example() -> Upload:
    """Return a drawn photo of three persons, the same each time."""
    photo = np.empty((600, 1000, 3), np.uint8)
    photo[:] = np.linspace((150, 170, 190), (100, 115, 130), 600)[:, None]
    for number, (code, seed) in enumerate(_PEOPLE):
        strengths = {unit: (full, full) for unit, full in EXPRESSIONS[code].items()}
        place = (180.0 + 320 * number, 270.0)
        draw_face(photo, Face(place, 95, (0.0, 0.0, 0.0), strengths), np.random.default_rng(seed))
    return Upload("example (drawn faces).png", cv2.imencode(".png", photo)[1].tobytes())
