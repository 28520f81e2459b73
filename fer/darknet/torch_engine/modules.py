"""Darknet's layers as torch modules: what each computes, and the order of its numbers in a .weights file.

Tensors are (N, channels, height, width). Measured and read off the programs: eps inside the root and the unbiased
variance as in AlexeyAB's CPU code; Debian's program differs by sqrt(v) + 1e-6.
"""

from collections.abc import Callable, Sequence
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer.darknet.formats.cfg import Shape
from fer.darknet.formats.section import Section, integer, number, numbers
from fer.darknet.torch_engine.boxes import decode
from fer.errors import InputError

#: Name in the cfg to the function of (tensor, whether it may overwrite it).
ACTIVATIONS: dict[str, Callable[[Tensor, bool], Tensor]] = {
    "linear": lambda x, inplace: x,
    "leaky": lambda x, inplace: F.leaky_relu(x, 0.1, inplace),
    "relu": F.relu,
    "mish": F.mish,
    "swish": F.silu,
    "logistic": lambda x, inplace: x.sigmoid_() if inplace else x.sigmoid(),
}


class BatchNorm(nn.BatchNorm2d):
    """Batch normalisation that divides by the unbiased deviation in training, too, and keeps 1 % of it.

    As in the program the rolling variance begins at 0, so an untrained net is of no use outside of training.
    """

    running_mean: Tensor
    running_var: Tensor
    momentum: float

    def __init__(self, channels: int, where: str) -> None:
        super().__init__(channels, eps=1e-5, momentum=0.01)
        self.where = where
        self.running_var.zero_()

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        n = x.numel() // self.num_features
        if n < 2:
            raise InputError(f"{self.where}: batch_normalize=1 has one number a channel to train on: raise batch=")
        # torch divides by sqrt(biased + eps); with biased = unbiased * (n - 1) / n this is the program's
        share = (n - 1) / n
        weight, eps = self.weight * sqrt(share), self.eps * share
        return F.batch_norm(x, self.running_mean, self.running_var, weight, self.bias, True, self.momentum, eps)

    def statistics(self) -> dict[str, Tensor]:
        """Return what a .weights file holds beside the bias, in its order."""
        return {"scale": self.weight, "mean": self.running_mean, "variance": self.running_var}


class Weighted(nn.Module):
    """A convolution or a connected layer, its batch normalisation where it has one, and its activation."""

    def __init__(self, section: Section, linear: nn.Conv2d | nn.Linear) -> None:
        super().__init__()
        self.linear = linear
        self.activation = _activation(section, "logistic")
        self.norm = BatchNorm(len(linear.weight), section.where) if linear.bias is None else None
        inputs = linear.weight[0].numel()
        nn.init.uniform_(linear.weight, -sqrt(2 / inputs), sqrt(2 / inputs))
        if linear.bias is not None:
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x)
        return _activate(x if self.norm is None else self.norm(x), self.activation)

    def stored(self) -> dict[str, Tensor]:
        """Return the layer's tensors in the order of a .weights file: a normalised layer's bias is its norm's."""
        if self.norm is not None:
            return {"bias": self.norm.bias, **self.norm.statistics(), "weight": self.linear.weight}
        assert self.linear.bias is not None  # one of both has it
        return {"bias": self.linear.bias, "weight": self.linear.weight}

    @torch.no_grad()
    def fold(self) -> None:
        """Work the batch normalisation's rolling numbers into weights and biases, for good."""
        if self.norm is None:
            return
        factor = self.norm.weight.double() / (self.norm.running_var.double() + self.norm.eps).sqrt()
        bias = self.norm.bias.double() - self.norm.running_mean.double() * factor
        weight = self.linear.weight
        weight.copy_(weight.double() * factor.view(-1, *[1] * (weight.ndim - 1)))
        self.linear.bias, self.norm = nn.Parameter(bias.to(weight.dtype), weight.requires_grad), None


class Convolutional(Weighted):
    def __init__(self, section: Section, shapes: Sequence[Shape]) -> None:
        filters, size, stride, groups = (integer(section, k, 1) for k in ("filters", "size", "stride", "groups"))
        padding = size // 2 if integer(section, "pad", 0) else integer(section, "padding", 0)
        if padding < 0:
            raise InputError(f"{section.where}: padding={padding} is negative")
        bias = not integer(section, "batch_normalize", 0)
        super().__init__(section, nn.Conv2d(shapes[0][2], filters, size, stride, padding, groups=groups, bias=bias))


class Connected(Weighted):
    def __init__(self, section: Section, shapes: Sequence[Shape]) -> None:
        width, height, channels = shapes[0]
        bias = not integer(section, "batch_normalize", 0)
        super().__init__(section, nn.Linear(width * height * channels, integer(section, "output", 1), bias=bias))

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x.flatten(1))[..., None, None]
        return _activate(x if self.norm is None else self.norm(x), self.activation)

    def stored(self) -> dict[str, Tensor]:
        if self.norm is None:
            return super().stored()
        return {"bias": self.norm.bias, "weight": self.linear.weight, **self.norm.statistics()}


class MaxPool(nn.Module):
    """Maxima of windows that begin padding // 2 before the edge; ``padding``, of both sides, is size - 1 by default."""

    def __init__(self, section: Section, shapes: Sequence[Shape]) -> None:
        super().__init__()
        self.stride = integer(section, "stride", 1)
        self.size = integer(section, "size", self.stride)
        self.padding = integer(section, "padding", self.size - 1)
        if not 0 <= self.padding <= 2 * (self.size - 1):
            raise InputError(f"{section.where}: padding={self.padding} with size={self.size} pools nothing at the edge")

    def forward(self, x: Tensor) -> Tensor:
        before = self.padding // 2
        after = []
        for length in (x.shape[3], x.shape[2]):
            out = (length + self.padding - self.size) // self.stride + 1
            after.append((out - 1) * self.stride + self.size - before - length)
        if before <= self.size // 2 and max(after) <= before:
            return F.max_pool2d(x, self.size, self.stride, before)
        x = F.pad(x, (before, after[0], before, after[1]), value=-torch.inf)
        return F.max_pool2d(x, self.size, self.stride)


class AvgPool(nn.Module):
    def __init__(self, section: Section, shapes: Sequence[Shape]) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True)


class Softmax(nn.Module):
    """Probabilities of the channels; in training their logits, for the loss.

    As in the programs, temperature divides the channels and not their gradient.
    """

    def __init__(self, section: Section, shapes: Sequence[Shape]) -> None:
        super().__init__()
        self.temperature = number(section, "temperature", 1)
        if self.temperature <= 0:
            raise InputError(f"{section.where}: temperature={self.temperature:g} is not positive")

    def forward(self, x: Tensor) -> Tensor:
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
        self.activation = _activation(section, "linear")

    def forward(self, x: Tensor, *others: Tensor) -> Tensor:
        for other in others:
            x = x + other if x.shape == other.shape else _add_unequal(x, other)
        return _activate(x, self.activation)


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


class Yolo(nn.Module):
    """A detector's head: the layer before it as it is, and on request the boxes that it stands for.

    ``anchors`` (A, 2) are those of its mask, width and height in pixels of the net's input.
    """

    anchors: Tensor

    def __init__(self, section: Section, shapes: Sequence[Shape]) -> None:
        super().__init__()
        self.classes = integer(section, "classes", 20)
        if self.classes < 1:
            raise InputError(f"{section.where}: classes={self.classes} is not positive")
        anchors = numbers(section, "anchors")
        mask = numbers(section, "mask") or range(integer(section, "num", 1))
        boxes = [anchors[2 * int(index) : 2 * int(index) + 2] for index in mask]
        if not all(0 < side < float("inf") for box in boxes for side in box):
            raise InputError(f"{section.where}: anchors={section.options['anchors']} are not all lengths")
        self.register_buffer("anchors", torch.tensor(boxes), persistent=False)
        self.scale = number(section, "scale_x_y", 1)
        self.new_coords = bool(integer(section, "new_coords", 0))

    def forward(self, x: Tensor) -> Tensor:
        return x

    def decode(self, raw: Tensor, width: int, height: int) -> Tensor:
        """Return the boxes of a head's numbers (N, A * (5 + classes), rows, columns), cell by cell, row by row.

        (N, rows * columns * A, 5 + classes): the centre's x and y, width and height as fractions of the net's input of
        ``width`` x ``height`` pixels, objectness, the classes' probabilities if there is an object. With new_coords
        (Scaled-YOLOv4) the layer before has made everything a sigmoid already.
        """
        n, _, rows, columns = raw.shape
        # in the anchors' float32 also under mixed precision, where a cell's number would leave the centre few bits
        x = (
            raw.to(self.anchors.dtype)
            .view(n, len(self.anchors), 5 + self.classes, rows, columns)
            .permute(0, 3, 4, 1, 2)
        )
        grid = self.anchors.new_tensor([columns, rows])
        anchors = self.anchors * grid / self.anchors.new_tensor([width, height])
        row, column = (torch.arange(length, device=x.device, dtype=x.dtype) for length in (rows, columns))
        cell = torch.stack(torch.meshgrid(column, row, indexing="xy"), dim=-1)[:, :, None]
        box = decode(x[..., :4], cell, anchors, self.scale, self.new_coords) / grid.repeat(2)
        sure = x[..., 4:] if self.new_coords else x[..., 4:].sigmoid()
        return torch.cat([box, sure], dim=-1).flatten(1, 3)


#: Kind of a section to the module made of it and the shapes (width, height, channels) of its inputs.
MODULES: dict[str, Callable[[Section, Sequence[Shape]], nn.Module]] = {
    "convolutional": Convolutional, "connected": Connected, "maxpool": MaxPool, "avgpool": AvgPool, "softmax": Softmax,
    "cost": Cost, "route": Route, "shortcut": Shortcut, "upsample": Upsample, "dropout": Dropout, "yolo": Yolo,
}  # fmt: skip


def _activation(section: Section, default: str) -> str:
    name = section.options.get("activation", default)
    if name not in ACTIVATIONS:
        raise InputError(f"{section.where}: activation={name} is not one of {', '.join(ACTIVATIONS)}")
    return name


def _activate(x: Tensor, name: str) -> Tensor:
    # x is always a layer's own new tensor; of these autograd needs the result only, of mish and swish what went in
    result_only = name in ("leaky", "relu", "logistic")
    return ACTIVATIONS[name](x, result_only or not torch.is_grad_enabled())


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
