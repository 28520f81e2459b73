"""Photos of a Darknet list read to train on: one that can't be read ends the run with its name, in whatever process."""

import numpy as np

from fer.data.photos import read_photo
from fer.data.source import PhotoLimits
from fer.errors import InputError


class PhotoError(InputError):
    """A photo or its labels can't be read.

    A DataLoader makes the error of a worker process anew from the text of its traceback: of that the last line counts.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message.strip().rsplit(f"{type(self).__name__}: ")[-1])


def open_photo(path: str) -> np.ndarray:
    """Return a photo as uint8 (h, w, 3) RGB, as in the programs not turned by its EXIF tag.

    Raises:
        PhotoError: it is missing, no image, or truncated; the programs would take a random picture in its place.
    """
    photo = read_photo(path, "rgb", PhotoLimits(exif="ignore"))
    if isinstance(photo, str):
        raise PhotoError(f"{path}: {photo}; make the Darknet folder anew with prepare.py, or take it off the list")
    return photo
