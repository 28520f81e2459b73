"""Photos read, made a net's input as the programs do when they evaluate, and boxes put back on the photo.

Photos are uint8 (h, w, 3) RGB, inputs float32 (3, height, width) in 0..1. The programs resize in float by bilinear
interpolation with aligned corners, without averaging when they shrink, and so does torch.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

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
    """Return a photo as uint8 (h, w, 3) RGB.

    Raises:
        PhotoError: it is missing, no image, or truncated; the programs would take a random picture in its place.
    """
    photo = read_photo(path, "rgb", PhotoLimits())
    if isinstance(photo, str):
        raise PhotoError(f"{path}: {photo}; make the Darknet folder anew with prepare.py, or take it off the list")
    return photo


def resize(photo: np.ndarray, width: int, height: int) -> Tensor:
    """Return a photo stretched to ``width`` x ``height`` as an input."""
    x = torch.from_numpy(photo).permute(2, 0, 1)[None].float()
    return F.interpolate(x, size=(height, width), mode="bilinear", align_corners=True)[0] / 255


def letterbox_size(photo: tuple[int, int], net: tuple[int, int]) -> tuple[int, int]:
    """Return the width and height in which a photo, aspect kept, fits a net; both sizes are (width, height)."""
    (width, height), (net_width, net_height) = photo, net
    if net_width * height < net_height * width:
        return net_width, max(1, height * net_width // width)
    return max(1, width * net_height // height), net_height


def detector_input(photo: np.ndarray, net: tuple[int, int], letterbox: bool) -> Tensor:
    """Return a photo as a detector sees it, ``net`` (width, height) large.

    With ``letterbox`` in the middle of grey (Debian's program; AlexeyAB's with letter_box=1), else stretched.
    """
    if not letterbox:
        return resize(photo, *net)
    width, height = letterbox_size((photo.shape[1], photo.shape[0]), net)
    left, upper = (net[0] - width) // 2, (net[1] - height) // 2
    boxed = torch.full((3, net[1], net[0]), 0.5)
    boxed[:, upper : upper + height, left : left + width] = resize(photo, width, height)
    return boxed


def classifier_input(photo: np.ndarray, net: tuple[int, int]) -> Tensor:
    """Return the centre of a photo whose shorter side was resized to the net's width; ``net`` is (width, height).

    As AlexeyAB's `classifier valid` and `predict`, and Debian's `fout`; Debian's `valid` cuts the square out first. A
    net that is higher than the photo gets its edge repeated.
    """
    height, width = photo.shape[:2]
    shorter = min(width, height)
    x = resize(photo, width * net[0] // shorter, height * net[0] // shorter)
    rows, columns = (_centre(length, wanted) for length, wanted in zip(x.shape[1:], net[::-1], strict=True))
    return x[:, rows][:, :, columns]


def _centre(length: int, wanted: int) -> Tensor:
    first = int((length - wanted) / 2)  # towards 0, as in C
    return torch.arange(first, first + wanted).clamp(0, length - 1)


def to_photo(boxes: Tensor, photo: tuple[int, int], net: tuple[int, int], letterbox: bool) -> Tensor:
    """Return boxes (..., 4) in pixels of the photo: left edge, upper edge, width, height.

    ``boxes`` are centre x and y, width and height as fractions of the input; ``photo`` and ``net`` (width, height). By
    the programs' rule, which takes half of an odd margin for half a pixel less than the photo was put in by.
    """
    size, net_size = boxes.new_tensor(photo), boxes.new_tensor(net)
    share = boxes.new_tensor(letterbox_size(photo, net) if letterbox else net) / net_size
    centre = (boxes[..., :2] - (1 - share) / 2) / share * size
    extent = boxes[..., 2:] / share * size
    return torch.cat([centre - extent / 2, extent], dim=-1)


class EvaluationPhotos(Dataset):
    """Photos as the net sees them when it is evaluated: item i is its input float32 (3, height, width) and its size.

    The size is (width, height) in pixels, which `to_photo` wants.

    Raises:
        PhotoError: from an item, for a photo that can't be read.
    """

    def __init__(self, photos: Sequence[str], size: tuple[int, int], task: str, letterbox: bool = False) -> None:
        self.photos, self.size, self.task, self.letterbox = list(photos), size, task, letterbox

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, index: int) -> tuple[Tensor, tuple[int, int]]:
        photo = open_photo(self.photos[index])
        if self.task == "classifier":
            x = classifier_input(photo, self.size)
        else:
            x = detector_input(photo, self.size, self.letterbox)
        return x, (photo.shape[1], photo.shape[0])
