"""Augmentation of whole batches on the device they are on, each image with draws of its own: ours, or the user's."""

import contextlib
import math
import random
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fer.errors import InputError
from fer.models.crops import center_crop, require_fits
from fer.models.networks import to_unit
from fer.targets import build


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
    scale: float | tuple[float, float],
    translate: float,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Turn, scale, move and mirror each image about its centre and cut the central square, in one interpolation.

    Uniform for each image: the angle in [-rotate, rotate] degrees, the factor in [1 - scale, 1 + scale], the way right
    and down in [-translate, translate] of the image's side; mirrored with the probability ``flip``. With a pair as
    ``scale`` the factor lies between the two, its logarithm uniform. Bilinear; what lies outside is the image reflected
    at its edge. Shapes: (N, C, H, W) of any type to float (N, C, size, size) of the same range of values.

    Raises:
        InputError: ``size`` is larger than the images.
    """
    require_fits(images, size)
    n, _, height, width = images.shape
    draws = 2 * torch.rand((n, 4), generator=generator, device=images.device) - 1
    mirrored = torch.rand(n, generator=generator, device=images.device) < flip
    angle = torch.deg2rad(rotate * draws[:, 0])
    if isinstance(scale, tuple):
        low, high = math.log(scale[0]), math.log(scale[1])
        factor = torch.exp(-(low + high) / 2 - (high - low) / 2 * draws[:, 1])
    else:
        factor = 1 / (1 + scale * draws[:, 1])
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

    Shapes: (N, C, H, W) to (N, C, crop, crop), uint8 or float in [0, 255]. uint8 stays uint8 where pixels only change
    places.

    Args:
        crop: the side in pixels of what is cut.
        flip: probability of a mirrored face.
        rotate: largest turn to either side, in degrees.
        scale: a face is enlarged by a factor between 1 - scale and 1 + scale.
        translate: largest move along each side, as a fraction of it.
        brightness: pixels are multiplied by a factor between 1 - brightness and 1 + brightness.
        contrast: contrast is multiplied by a factor between 1 - contrast and 1 + contrast.
        erase: probability that a rectangle of 2 to 33 % is filled with the face's mean (Zhong et al. 2017).

    Raises:
        InputError: a value out of range.
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
        for key, value in {"flip": flip, "erase": erase}.items():
            if not 0 <= value <= 1:
                raise InputError(f"augment.{key}={value} is not a probability")
        fractions = {"scale": scale, "translate": translate, "brightness": brightness, "contrast": contrast}
        for key, value in fractions.items():
            if not 0 <= value < 1:
                raise InputError(f"augment.{key}={value} is not a fraction from 0 (off) to below 1")
        if not 0 <= rotate <= 180:
            raise InputError(f"augment.rotate={rotate} is not an angle of 0 to 180 degrees")
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


class Chain(nn.Module):
    """Transforms one after another: torchvision's, kornia's, one's own, `Augment`, chains.

    Each is a `torch.nn.Module` of faces (N, C, H, W): with ``dtype`` float32 it is given floats in [0, 1], with uint8
    pixels, as some of torchvision's need, and may give either. One of torchvision's draws once a call, whatever it is
    given, so it is called for each face. ``crop`` are the pixels of the squares that the last one gives, as many as
    evaluation cuts from the centre; None: the size of the faces.

    Raises:
        InputError: one of ``transforms`` is no module, or gives what are no faces.
    """

    def __init__(
        self, transforms: list[Any], crop: int | None = None, dtype: Literal["float32", "uint8"] = "float32"
    ) -> None:
        super().__init__()
        for number, transform in enumerate(transforms):
            if not isinstance(transform, nn.Module):
                given = f"{transform!r:.40}" if isinstance(transform, str | dict) else type(transform).__name__
                raise InputError(f"augment.transforms.{number}: {given} is no torch.nn.Module: name one by _target_")
        self.transforms, self.crop, self.dtype = nn.ModuleList(transforms), crop, dtype
        self._looked_at = False

    def forward(self, faces: Tensor) -> Tensor:
        for transform in self.transforms:
            faces = _to_bytes(faces) if self.dtype == "uint8" else _to_floats(faces)
            if isinstance(transform, Augment):
                # floats of ours are in [0, 255]
                faces = to_unit(transform(faces * 255 if faces.is_floating_point() else faces))
            elif _draws_once_a_call(transform):
                faces = _joined([transform(face) for face in faces], transform)
            else:
                faces = transform(faces)
            _require_pixels(faces, type(transform).__name__)
            if self.dtype == "uint8" and not self._looked_at:
                # they would be cut to the range, where floats may come back into it
                _require_range(faces, type(transform).__name__)
        self._looked_at = True
        return faces


def _to_floats(faces: Tensor) -> Tensor:
    return faces if faces.is_floating_point() else to_unit(faces)


def _to_bytes(faces: Tensor) -> Tensor:
    return (255 * faces).round_().clamp_(0, 255).to(torch.uint8) if faces.is_floating_point() else faces


def _draws_once_a_call(transform: nn.Module) -> bool:
    """Whether a transform is one of torchvision's, of either version, or made of one."""
    return any(kind.__module__.startswith("torchvision.transforms.") for kind in type(transform).__mro__)


def _joined(faces: list[Tensor], transform: nn.Module) -> Tensor:
    sizes = sorted({tuple(face.shape) for face in faces})
    if len(sizes) > 1:
        name = type(transform).__name__
        raise InputError(f"augment: {name} gives faces of different shapes, {sizes[0]} and {sizes[-1]}: leave it out")
    return torch.stack(faces)


def _require_pixels(given: Any, name: str) -> None:
    if not isinstance(given, Tensor):
        raise InputError(f"augment: {name} gives {type(given).__name__}, not a tensor (N, C, H, W)")
    if not given.is_floating_point() and given.dtype != torch.uint8:
        raise InputError(f"augment: {name} gives {given.dtype}, not floats in [0, 1] or uint8")


#: How far beyond [0, 1] interpolation may round.
_ROUNDING = 1e-3


def _require_range(given: Tensor, name: str) -> None:
    """Refuse floats that are NaN or not in [0, 1]; it waits for the device."""
    if given.dtype == torch.uint8:
        return
    low, high = (float(end) for end in given.aminmax())
    if math.isnan(low):
        raise InputError(f"augment: {name} gives values that are NaN")
    if low < -_ROUNDING or high > 1 + _ROUNDING:
        raise InputError(
            f"augment: {name} gives values from {low:.3g} to {high:.3g}, not in [0, 1]: have it clamp "
            "them; a normalisation is the network's, model.mean and model.std"
        )


def build_augment(config: dict[str, Any]) -> nn.Module:
    """Build what a checked ``augment`` config describes.

    Raises:
        InputError: its constructor refuses a value.
    """
    module: nn.Module = build(config, "augment")
    return module


class Augmentation:
    """What a training step does with uint8 faces (N, C, H, W): floats in [0, 1], (N, C, crop, crop).

    ``config`` is an ``augment`` config. What is not ours is given floats in [0, 1], in float32 whatever the precision
    of the training, or uint8 where it is a `Chain` that says so, without gradients, and gives either. Its draws from
    the generators of torch, NumPy and Python follow torch's CPU generator. Not a module: nothing of it is trained,
    averaged or in a checkpoint.

    Raises:
        InputError: it gives other shapes, or at the first call values that are NaN or out of range.
    """

    def __init__(self, config: dict[str, Any], crop: int) -> None:
        self._target, self._crop = config["_target_"], crop
        #: What the config names.
        self.module = build_augment(config)
        self._chain = self.module if isinstance(self.module, Chain) else Chain([self.module])
        self._looked_at = False

    def __deepcopy__(self, memo: dict[int, Any]) -> "Augmentation":
        # the averaged copy of what is trained needs none of its own
        return self

    def to(self, device: torch.device) -> None:
        """Move what it is made of."""
        self.module.to(device)

    def __call__(self, faces: Tensor) -> Tensor:
        if type(self.module) is Augment:
            return to_unit(self.module(faces))
        seed = torch.default_generator.initial_seed()
        random.seed(seed)
        np.random.seed(seed % 2**32)
        with _as_without_mixed_precision(faces.device):
            given = self._chain(to_unit(faces))
            self._require_faces(given, faces)
            given = _to_floats(given)
        return given.to(faces.device, torch.get_default_dtype())

    def _require_faces(self, given: Tensor, faces: Tensor) -> None:
        wanted = (*faces.shape[:2], self._crop, self._crop)
        if tuple(given.shape) != wanted:
            raise InputError(
                f"augment: {self._target} gives {tuple(given.shape)}, not {wanted}, the faces (N, C, H, W) as "
                f"evaluation cuts them: {self._remedy(tuple(given.shape), wanted, min(faces.shape[2:]))}"
            )
        if not self._looked_at:
            # once, because it waits for the device
            self._looked_at = True
            _require_range(given, self._target)

    @staticmethod
    def _remedy(given: tuple[int, ...], wanted: tuple[int, ...], largest: int) -> str:
        if len(given) == 4 and given[:2] == wanted[:2] and given[2] == given[3] <= largest:
            return f"give augment.crop={given[3]}, or have it give {wanted[3]} pixels a side"
        return "it has to keep their number and channels"


@contextlib.contextmanager
def _as_without_mixed_precision(device: torch.device) -> Iterator[None]:
    """Run code that was written for float32, without gradients."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_default_dtype(before)
