"""Augmentation for faces from anywhere: other crops and poses, light, cameras and files than the training data's."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from fer.errors import InputError
from fer.training.augment import random_affine, random_erase

#: Luminance quantisation of JPEG's Annex K, for quality 50.
_JPEG = torch.tensor([
    [16, 11, 10, 16, 24, 40, 51, 61], [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56], [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77], [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101], [72, 92, 95, 98, 112, 100, 103, 99],
], dtype=torch.float32)  # fmt: skip


class Wild(nn.Module):
    """Faces as other cameras, crops and files would have given them.

    Each image has draws of its own. ``rotate`` (degrees), ``zoom`` (smallest and largest factor of the face's size,
    drawn by its logarithm), ``translate`` (of the side) and ``flip`` (probability) are one interpolation. The others
    are the probability of each change:

    * ``gamma``: values to a power of 0.5 to 2, by its logarithm.
    * ``contrast``: distances from the mean times 0.4 to 1.6.
    * ``balance``: each channel's mean towards mid-grey (the grey-world rule), by 0 to 1 of the way.
    * ``equalize``: values towards their rank in the image (histogram equalisation), by 0 to 0.8 of the way.
    * ``blur``: a Gaussian of a standard deviation of 0.3 to 1.2 pixels.
    * ``low_resolution``: sampled at 0.35 to 0.8 of the side and enlarged again.
    * ``noise``: Gaussian, of a standard deviation of up to 1/16.
    * ``jpeg``: blocks of 8 x 8 stored at a quality of 10 to 70, each channel by itself.
    * ``erase``: a rectangle covered, see `random_erase`.

    Shapes: float (N, C, H, W) in [0, 1] to such faces (N, C, crop, crop).

    Raises:
        InputError: a value out of range.
    """

    def __init__(
        self,
        crop: int,
        flip: float = 0.5,
        rotate: float = 30.0,
        zoom: Sequence[float] = (0.7, 1.4),
        translate: float = 0.08,
        gamma: float = 0.5,
        contrast: float = 0.5,
        balance: float = 0.2,
        equalize: float = 0.2,
        blur: float = 0.2,
        low_resolution: float = 0.2,
        noise: float = 0.2,
        jpeg: float = 0.2,
        erase: float = 0.25,
    ) -> None:
        super().__init__()
        self._probability = {
            "gamma": gamma, "contrast": contrast, "balance": balance, "equalize": equalize, "blur": blur,
            "low_resolution": low_resolution, "noise": noise, "jpeg": jpeg,
        }  # fmt: skip
        for key, value in {"flip": flip, "erase": erase, **self._probability}.items():
            if not 0 <= value <= 1:
                raise InputError(f"augment.{key}={value} is not a probability")
        if not 0 <= translate < 1:
            raise InputError(f"augment.translate={translate} is not a fraction from 0 (off) to below 1")
        if not 0 <= rotate <= 180:
            raise InputError(f"augment.rotate={rotate} is not an angle of 0 to 180 degrees")
        if len(zoom) != 2 or not 0.1 <= zoom[0] <= zoom[1] <= 10:
            raise InputError(f"augment.zoom={list(zoom)}: give the smallest and the largest factor, within 0.1 to 10")
        self.crop, self.flip, self.rotate, self.translate, self.erase = crop, flip, rotate, translate, erase
        self.zoom = (float(zoom[0]), float(zoom[1]))

    def forward(self, images: Tensor) -> Tensor:
        images = random_affine(images, self.crop, self.flip, self.rotate, self.zoom, self.translate)
        for name, probability in self._probability.items():
            chosen = (torch.rand(len(images), device=images.device) < probability).nonzero()[:, 0]
            # only these, as equalisation alone costs more than all that is not among the changes
            if len(chosen):
                change, low, high = _CHANGES[name]
                amount = low + (high - low) * torch.rand(len(chosen), 1, 1, 1, device=images.device)
                images[chosen] = change(images[chosen], amount).clamp(0, 1)
        return random_erase(images, self.erase) if self.erase else images


# Each change takes faces in [0, 1], (N, C, H, W), and an amount for each, (N, 1, 1, 1).


def _gamma(images: Tensor, doublings: Tensor) -> Tensor:
    return images.clamp(0, 1) ** 2**doublings


def _contrast(images: Tensor, factor: Tensor) -> Tensor:
    return torch.lerp(images.mean((1, 2, 3), keepdim=True), images, factor)


def _balance(images: Tensor, way: Tensor) -> Tensor:
    gain = 0.5 / images.mean((2, 3), keepdim=True).clamp(min=1 / 255)
    return images * torch.lerp(torch.ones_like(gain), gain, way)


def _equalize(images: Tensor, way: Tensor) -> Tensor:
    grey = images.mean(1, keepdim=True)
    values = grey.flatten(1)
    below = torch.searchsorted(values.sort(1).values, values, right=True).to(images.dtype).view_as(grey)
    lowest = below.amin((1, 2, 3), keepdim=True)
    equal = (below - lowest) / (values.shape[1] - lowest).clamp(min=1)
    # the same change for all channels keeps the colour
    return images + way * (equal - grey)


def _noise(images: Tensor, deviation: Tensor) -> Tensor:
    return images + deviation * torch.randn_like(images)


def _blur(images: Tensor, deviation: Tensor) -> Tensor:
    return _along_both(images, lambda places: _gaussian(places, deviation))


def _low_resolution(images: Tensor, factor: Tensor) -> Tensor:
    def sampled(places: Tensor) -> Tensor:
        # a blur of half a coarse pixel, then linear interpolation between the coarse pixels' middles
        middles = (places + 0.5) / factor - 0.5
        near = (1 - (places.view(-1, 1) - middles).abs() * factor).clamp(min=0)
        down = _gaussian(places, 0.5 / factor, middles.transpose(2, 3))
        return (near / near.sum(3, keepdim=True).clamp(min=1e-6)) @ down

    return _along_both(images, sampled)


def _gaussian(places: Tensor, deviation: Tensor, middles: Tensor | None = None) -> Tensor:
    """Return rows of weights over ``places`` about ``middles``, (N, 1, rows, places); by default a row for each."""
    middles = places.view(-1, 1) if middles is None else middles
    weights = torch.exp(-0.5 * ((middles - places) / deviation) ** 2)
    return weights / weights.sum(3, keepdim=True).clamp(min=1e-12)


def _along_both(images: Tensor, matrix: Callable[[Tensor], Tensor]) -> Tensor:
    """Multiply the columns and the rows of each image by its matrix."""
    height, width = (torch.arange(side, device=images.device, dtype=images.dtype) for side in images.shape[2:])
    return matrix(height) @ images @ matrix(width).transpose(2, 3)


def _jpeg(images: Tensor, quality: Tensor, place: tuple[int, int] | None = None) -> Tensor:
    n, channels, height, width = images.shape
    # where a picture's blocks begin says nothing of where a face was cut from it: one place for all of a batch
    top, left = place or (int(side) for side in torch.randint(8, (2,)))
    below, right = -(top + height) % 8, -(left + width) % 8
    padded = functional.pad(images * 255 - 128, (left, right, top, below), mode="replicate")
    blocks = padded.view(n, channels, padded.shape[2] // 8, 8, padded.shape[3] // 8, 8).transpose(3, 4)
    wave = torch.arange(8, device=images.device, dtype=images.dtype)
    cosine = torch.cos(math.pi / 8 * (wave + 0.5) * wave.view(8, 1)) / 2
    cosine[0] /= math.sqrt(2)
    quality = quality.view(n, 1, 1, 1, 1, 1)
    # libjpeg's scale of the table, whose entries are whole
    scale = torch.where(quality < 50, 50 / quality, 2 - quality / 50)
    step = (_JPEG.to(images.device) * scale + 0.5).floor().clamp(1, 255)
    stored = ((cosine @ blocks @ cosine.T) / step).round() * step
    whole = (cosine.T @ stored @ cosine).transpose(3, 4).reshape(padded.shape)
    return (whole[:, :, top : top + height, left : left + width] + 128) / 255


#: Each change with its smallest and its largest amount.
_CHANGES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], float, float]] = {
    "gamma": (_gamma, -1, 1), "contrast": (_contrast, 0.4, 1.6), "balance": (_balance, 0, 1),
    "equalize": (_equalize, 0, 0.8), "blur": (_blur, 0.3, 1.2), "low_resolution": (_low_resolution, 0.35, 0.8),
    "noise": (_noise, 0, 1 / 16), "jpeg": (_jpeg, 10, 70),
}  # fmt: skip
