"""Darknet's layers as torch modules, by the kind of their section. Tensors are (N, channels, height, width)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer.darknet.formats.cfg import Shape, strides
from fer.darknet.formats.section import Section, integer, number
from fer.darknet.torch_engine.heads import Detection, GaussianYolo, Region, Yolo
from fer.darknet.torch_engine.weighted import (
    Connected,
    Convolutional,
    Local,
    Normalization,
    activate,
    read_activation,
)
from fer.errors import InputError


class MaxPool(nn.Module):
    """Maxima of windows that begin padding // 2 before the edge; ``padding``, of both sides, is size - 1 by default."""

    def __init__(self, section: Section, shapes: Sequence[Shape]) -> None:
        super().__init__()
        self.stride = strides(section)
        self.size = integer(section, "size", integer(section, "stride", 1))
        self.padding = integer(section, "padding", self.size - 1)
        if not 0 <= self.padding <= 2 * (self.size - 1):
            raise InputError(f"{section.where}: padding={self.padding} with size={self.size} pools nothing at the edge")

    def forward(self, x: Tensor) -> Tensor:
        before, stride = self.padding // 2, (self.stride[1], self.stride[0])
        right, below = self.beyond(x)
        if before <= self.size // 2 and max(right, below) <= before:
            return F.max_pool2d(x, self.size, stride, before)
        x = F.pad(x, (before, right, before, below), value=-torch.inf)
        return F.max_pool2d(x, self.size, stride)

    def beyond(self, x: Tensor) -> tuple[int, int]:
        """Return how far the last windows reach beyond the right and the lower edge, negative where not up to it."""
        after = []
        for length, stride in zip((x.shape[3], x.shape[2]), self.stride, strict=True):
            out = (length + self.padding - self.size) // stride + 1
            after.append((out - 1) * stride + self.size - self.padding // 2 - length)
        return after[0], after[1]


class AvgPool(nn.Module):
    def __init__(self, section: Section, shapes: Sequence[Shape]) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True)


class Softmax(nn.Module):
    """Probabilities of all of a photo's numbers (N, numbers, 1, 1); in training their logits, for the loss.

    As in the programs, temperature divides the channels and not their gradient.
    """

    def __init__(self, section: Section, shapes: Sequence[Shape]) -> None:
        super().__init__()
        self.temperature = number(section, "temperature", 1)
        if self.temperature <= 0:
            raise InputError(f"{section.where}: temperature={self.temperature:g} is not positive")

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)[..., None, None]
        divided = x / self.temperature
        if not self.training:
            return divided.softmax(1)
        return x if self.temperature == 1 else divided.detach() + (x - x.detach())


class Route(nn.Module):
    """Layers side by side in channels, or with ``groups`` the group_id-th part of each."""

    def __init__(self, section: Section, shapes: Sequence[Shape]) -> None:
        super().__init__()
        self.groups, self.group = integer(section, "groups", 1), integer(section, "group_id", 0)
        if any(channels % self.groups for _, _, channels in shapes):
            raise InputError(f"{section.where}: groups={self.groups} do not divide the channels of every layer")

    def forward(self, *parts: Tensor) -> Tensor:
        if self.groups > 1:
            parts = tuple(part.chunk(self.groups, 1)[self.group] for part in parts)
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


class Shortcut(nn.Module):
    """The sum of layers; where one is larger, its first channels and every second, third ... row and column count."""

    def __init__(self, section: Section, shapes: Sequence[Shape]) -> None:
        super().__init__()
        self.activation = read_activation(section, "linear")

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        for other in others:
            x = x + other if x.shape == other.shape else _add_unequal(x, other)
        return activate(x, self.activation)


class Upsample(nn.Module):
    def __init__(self, section: Section, shapes: Sequence[Shape]) -> None:
        super().__init__()
        self.stride, self.scale = integer(section, "stride", 2), number(section, "scale", 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.interpolate(x, scale_factor=float(self.stride), mode="nearest")
        return x if self.scale == 1 else x * self.scale


class Dropout(nn.Dropout):
    def __init__(self, section: Section, shapes: Sequence[Shape]) -> None:
        probability = number(section, "probability", 0.5)
        if not 0 <= probability < 1:
            raise InputError(f"{section.where}: probability={probability:g} is not within 0 and 1")
        super().__init__(probability)


class Cost(nn.Identity):
    """Nothing but the mark of a loss, which the training computes."""


class Cut(nn.Module):
    """The middle of a photo, in training any part of it or its mirror image, in -1..1 unless noadjust=1 is set.

    The angles and colours of a [crop] are for a GPU's program alone, and for its training.
    """

    def __init__(self, section: Section, shapes: Sequence[Shape]) -> None:
        super().__init__()
        self.width, self.height = integer(section, "crop_width", 1), integer(section, "crop_height", 1)
        self.flip, self.plain = bool(integer(section, "flip", 0)), bool(integer(section, "noadjust", 0))

    def forward(self, x: Tensor) -> Tensor:
        left, top = x.shape[3] - self.width, x.shape[2] - self.height
        if self.training:
            left, top = (int(torch.randint(room + 1, ())) for room in (left, top))
        else:
            left, top = left // 2, top // 2
        x = x[:, :, top : top + self.height, left : left + self.width]
        if self.training and self.flip and torch.rand(()) < 0.5:
            x = x.flip(3)
        return x if self.plain else 2 * x - 1


class Reorg(nn.Module):
    """Squares of stride x stride numbers put into channels; with reverse=1 channels into squares.

    [reorg3d] makes of channel c, at (row, column) in its square, channel (row * stride + column) * channels + c.
    [reorg] does the same to the numbers as if they lay in a picture of channels / stride^2, stride times as wide and
    high; with reverse=1 it is the other that takes them so.
    """

    def __init__(self, section: Section, shapes: Sequence[Shape]) -> None:
        super().__init__()
        self.stride, self.reverse = integer(section, "stride", 1), bool(integer(section, "reverse", 0))
        self.old = section.kind == "reorg"
        width, height, channels = shapes[0]
        parts = self.stride ** (2 * self.old + (4 - 2 * self.old if self.reverse else 0))
        if channels % parts or not (self.reverse or width % self.stride == height % self.stride == 0):
            raise InputError(
                f"{section.where}: stride={self.stride} does not divide its input of {width}x{height}x{channels}"
            )

    def forward(self, x: Tensor) -> Tensor:
        n, channels, height, width = x.shape
        s, wider = self.stride, self.old != self.reverse
        c, h, w = (channels // s**2, height * s, width * s) if wider else (channels, height, width)
        if self.reverse:
            x = x.reshape(n, s, s, c // s**2, h, w).permute(0, 3, 4, 1, 5, 2)
            return x.reshape(n, channels // s**2, height * s, width * s)
        x = x.reshape(n, c, h // s, s, w // s, s).permute(0, 3, 5, 1, 2, 4)
        return x.reshape(n, channels * s**2, height // s, width // s)


class LocalAvgPool(MaxPool):
    """Means of windows as `MaxPool` has them, over what lies within the edges."""

    def forward(self, x: Tensor) -> Tensor:
        sums = self.pool(x)
        return sums / self.pool(torch.ones_like(x[:1, :1]))

    def pool(self, x: Tensor) -> Tensor:
        right, below = self.beyond(x)
        before = self.padding // 2
        x = F.pad(x, (before, right, before, below))
        return F.avg_pool2d(x, self.size, (self.stride[1], self.stride[0]), divisor_override=1)


class Product(nn.Module):
    """The product of two layers, of equal shape ([sam]) or one a number a channel or a place ([scale_channels])."""

    def __init__(self, section: Section, shapes: Sequence[Shape]) -> None:
        super().__init__()
        self.activation = read_activation(section, "linear")

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        return activate(x * other, self.activation)


class Contrastive(nn.Identity):
    """A loss of training, which nothing of here has; its output is never used."""

    def __init__(self, section: Section, shapes: Sequence[Shape]) -> None:
        super().__init__()


#: Kind of a section to the module made of it and the shapes (width, height, channels) of its inputs.
MODULES: dict[str, Callable[[Section, Sequence[Shape]], nn.Module]] = {
    "convolutional": Convolutional, "connected": Connected, "maxpool": MaxPool, "avgpool": AvgPool, "softmax": Softmax,
    "cost": Cost, "route": Route, "shortcut": Shortcut, "upsample": Upsample, "dropout": Dropout, "crop": Cut,
    "local": Local, "batchnorm": Normalization, "local_avgpool": LocalAvgPool, "reorg": Reorg, "reorg3d": Reorg,
    "sam": Product, "scale_channels": Product, "contrastive": Contrastive, "yolo": Yolo,
    "Gaussian_yolo": GaussianYolo, "region": Region, "detection": Detection,
}  # fmt: skip


def _add_unequal(x: Tensor, other: Tensor) -> Tensor:
    """Return x with another shape's numbers added where both have some, as ResNet's strided shortcuts in the program.

    The other's rows and columns are taken every ``stride`` where it is larger, and put every ``apart`` where smaller.
    """
    channels = min(x.shape[1], other.shape[1])
    rows, columns = (min(x.shape[i], other.shape[i]) for i in (2, 3))
    stride, apart = max(1, other.shape[3] // x.shape[3]), max(1, x.shape[3] // other.shape[3])
    x = x.clone()
    x[:, :channels, : rows * apart : apart, : columns * apart : apart] += other[
        :, :channels, : rows * stride : stride, : columns * stride : stride
    ]
    return x
