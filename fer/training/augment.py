"""Augmentation of whole batches on the device they are on, each image with draws of its own."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from fer.models.crops import center_crop, require_fits


def random_crop_flip(
    images: Tensor, size: int, flip_probability: float, generator: torch.Generator | None = None
) -> Tensor:
    """Cut a square from a random place of each image and mirror it left to right with the given probability.

    Each image has its own place, uniform over all that fit, and its own flip. Shapes: (N, C, H, W) to
    (N, C, size, size). ``generator`` lives on the device of ``images``.

    Raises:
        InputError: ``size`` is larger than the images.
    """
    require_fits(images, size)
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


def random_affine(
    images: Tensor,
    size: int,
    flip: float,
    rotate: float,
    scale: float,
    translate: float,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Turn, scale, move and mirror each image about its centre and cut the central square, in one interpolation.

    Uniform for each image: the angle in [-rotate, rotate] degrees, the factor in [1 - scale, 1 + scale], the way right
    and down in [-translate, translate] of the image's side; mirrored with the probability ``flip``. Bilinear; what lies
    outside is the image reflected at its edge. Shapes: (N, C, H, W) of any type to float (N, C, size, size) of the same
    range of values.

    Raises:
        InputError: ``size`` is larger than the images.
    """
    require_fits(images, size)
    n, _, height, width = images.shape
    draws = 2 * torch.rand((n, 4), generator=generator, device=images.device) - 1
    mirrored = torch.rand(n, generator=generator, device=images.device) < flip
    angle, factor = torch.deg2rad(rotate * draws[:, 0]), 1 / (1 + scale * draws[:, 1])
    mirrored = torch.where(mirrored, -factor, factor)
    cos, sin = angle.cos(), angle.sin()
    right, down = (2 * translate * draws[:, 2:]).unbind(1)
    # from places in the output to places in the input, in units of half their sides
    across = torch.stack([cos * mirrored * size / width, -sin * factor * size / width, right], 1)
    along = torch.stack([sin * mirrored * size / height, cos * factor * size / height, down], 1)
    # autocast would multiply the places in bfloat16, which is a tenth of a pixel off
    with torch.autocast(images.device.type, enabled=False):
        grid = functional.affine_grid(torch.stack([across, along], 1), [n, 1, size, size], align_corners=False)
        return functional.grid_sample(images.float(), grid, padding_mode="reflection", align_corners=False)


def random_light(
    images: Tensor, brightness: float, contrast: float, generator: torch.Generator | None = None
) -> Tensor:
    """Scale each image's values, then its distances to their mean; float values stay in [0, 255].

    Both factors are uniform for each image, in [1 - brightness, 1 + brightness] and [1 - contrast, 1 + contrast], as in
    torchvision's ColorJitter.
    """
    draws = 2 * torch.rand((2, len(images), 1, 1, 1), generator=generator, device=images.device) - 1
    images = (images * (1 + brightness * draws[0])).clamp_(0, 255)
    mean = images.mean((1, 2, 3), keepdim=True)
    return torch.lerp(mean, images, 1 + contrast * draws[1]).clamp_(0, 255)


def random_erase(images: Tensor, probability: float, generator: torch.Generator | None = None) -> Tensor:
    """Fill a rectangle of some images with the image's mean.

    Its area is 2 to 33 % of the image and its height 0.3 to 3.3 times its width, as in Zhong et al. 2017 (Random
    Erasing); what reaches over the image is cut off.
    """
    n, _, height, width = images.shape
    device = images.device
    draws = torch.rand((5, n), generator=generator, device=device)
    area, ratio = (0.02 + 0.31 * draws[0]) * height * width, torch.exp(math.log(3.3) * (2 * draws[1] - 1))
    tall, wide = (area * ratio).sqrt().clamp(max=height), (area / ratio).sqrt().clamp(max=width)
    top, left = draws[2] * (height - tall), draws[3] * (width - wide)
    row = torch.arange(height, device=device) + 0.5
    column = torch.arange(width, device=device) + 0.5
    rows = (row >= top[:, None]) & (row < (top + tall)[:, None])
    columns = (column >= left[:, None]) & (column < (left + wide)[:, None])
    erased = rows[:, :, None] & columns[:, None, :] & (draws[4] < probability)[:, None, None]
    return torch.where(erased[:, None], images.mean((1, 2, 3), keepdim=True), images)


class Augment(nn.Module):
    """Augmentation while training, the centre crop otherwise; by default a random crop and horizontal flip.

    ``flip`` and ``erase`` are probabilities. With any of ``rotate`` (degrees), ``scale`` and ``translate`` (fractions)
    the place of the crop comes from `random_affine` in place of `random_crop_flip`; ``brightness`` and ``contrast`` are
    those of `random_light`. Shapes: uint8 (N, C, H, W) to (N, C, crop, crop), uint8 where pixels only change places,
    else float in [0, 255].
    """

    def __init__(
        self,
        crop: int,
        flip: float = 0.5,
        rotate: float = 0.0,
        scale: float = 0.0,
        translate: float = 0.0,
        brightness: float = 0.0,
        contrast: float = 0.0,
        erase: float = 0.0,
    ) -> None:
        super().__init__()
        self.crop, self.flip, self.erase = crop, flip, erase
        self.rotate, self.scale, self.translate = rotate, scale, translate
        self.brightness, self.contrast = brightness, contrast

    def forward(self, images: Tensor) -> Tensor:
        if not self.training:
            return center_crop(images, self.crop)
        if any((self.rotate, self.scale, self.translate)):
            images = random_affine(images, self.crop, self.flip, self.rotate, self.scale, self.translate)
        else:
            images = random_crop_flip(images, self.crop, self.flip)
        if self.brightness or self.contrast:
            images = random_light(images.float(), self.brightness, self.contrast)
        return random_erase(images.float(), self.erase) if self.erase else images
