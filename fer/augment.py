"""Crops and flips of whole batches, on the device and in the type (uint8 or float) the batch has."""

import torch
from torch import Tensor, nn

from fer.errors import InputError


def augmented_crop_size(size: int) -> int:
    """Return the crop in pixels for images of ``size`` pixels: the seed's 44 of 48, to the nearest even number.

    Even, so that the centre crop of an even size has the same margin on both sides.

    >>> [augmented_crop_size(size) for size in (48, 96, 224)]
    [44, 88, 206]
    """
    return 2 * ((size * 11 + 12) // 24)


def random_crop_flip(
    images: Tensor, size: int, flip_probability: float, generator: torch.Generator | None = None
) -> Tensor:
    """Cut a square from a random place of each image and mirror it left to right with the given probability.

    Each image has its own place, uniform over all that fit, and its own flip. Shapes: (N, C, H, W) to
    (N, C, size, size). ``generator`` lives on the device of ``images``.

    Raises:
        InputError: ``size`` is larger than the images.
    """
    _require_fits(images, size)
    n, channels, height, width = images.shape
    device = images.device
    top = torch.randint(height - size + 1, (n, 1), generator=generator, device=device)
    left = torch.randint(width - size + 1, (n, 1), generator=generator, device=device)
    flip = torch.rand((n, 1), generator=generator, device=device) < flip_probability
    offset = torch.arange(size, device=device)
    row = top + offset
    column = left + torch.where(flip, size - 1 - offset, offset)
    # One gather on flattened pixels: 4 times faster on CPU than advanced indexing, crop and flip in one copy.
    pixel = (row[:, :, None] * width + column[:, None, :]).view(n, 1, size * size)
    return images.flatten(2).gather(2, pixel.expand(-1, channels, -1)).view(n, channels, size, size)


def center_crop(images: Tensor, size: int) -> Tensor:
    """Return a view of the central squares, (..., H, W) to (..., size, size).

    An odd margin is split as torchvision's CenterCrop does it: half a pixel rounds to the even number.

    Raises:
        InputError: ``size`` is larger than the images.
    """
    _require_fits(images, size)
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


def _require_fits(images: Tensor, size: int) -> None:
    height, width = images.shape[-2:]
    if not 1 <= size <= min(height, width):
        raise InputError(f"crop={size} does not fit images of {width}x{height} pixels: set it from 1 to their size")


class Augment(nn.Module):
    """The seed's augmentation: random crop and horizontal flip while training, the centre crop otherwise.

    Shapes: (N, C, H, W) to (N, C, crop, crop); ``flip`` is a probability.
    """

    def __init__(self, crop: int, flip: float = 0.5) -> None:
        super().__init__()
        self.crop = crop
        self.flip = flip

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            return random_crop_flip(images, self.crop, self.flip)
        return center_crop(images, self.crop)
