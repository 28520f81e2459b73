"""The crops that a network sees of a face: the centre, or ten of them."""

import torch
from torch import Tensor

from fer.errors import InputError


def center_crop(images: Tensor, size: int) -> Tensor:
    """Return a view of the central squares, (..., H, W) to (..., size, size).

    An odd margin is split as torchvision's CenterCrop does it: half a pixel rounds to the even number.

    Raises:
        InputError: ``size`` is larger than the images.
    """
    require_fits(images, size)
    top, left = (round((length - size) / 2) for length in images.shape[-2:])
    return images[..., top : top + size, left : left + size]


def ten_crop(images: Tensor, size: int) -> Tensor:
    """Return ten squares of each image, (N, C, H, W) to (N, 10, C, size, size), in torchvision's TenCrop order.

    Top left, top right, bottom left, bottom right and centre, then the same five of the mirrored image.

    Raises:
        InputError: ``size`` is larger than the images.
    """
    return torch.stack([*_five_crops(images, size), *_five_crops(images.flip(-1), size)], dim=1)


def _five_crops(images: Tensor, size: int) -> list[Tensor]:
    center = center_crop(images, size)
    height, width = images.shape[-2:]
    corners = [(top, left) for top in (0, height - size) for left in (0, width - size)]
    return [*(images[..., top : top + size, left : left + size] for top, left in corners), center]


def require_fits(images: Tensor, size: int) -> None:
    height, width = images.shape[-2:]
    if not 1 <= size <= min(height, width):
        raise InputError(f"crop={size} does not fit images of {width}x{height} pixels: set it from 1 to their size")
