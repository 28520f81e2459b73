"""Darknet's layers as torch modules, by the kind of their section. Tensors are (N, channels, height, width)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer.darknet.formats.cfg import Shape
from fer.darknet.formats.section import Section, integer, number, numbers
from fer.darknet.torch_engine.boxes import decode
from fer.darknet.torch_engine.weighted import Connected, Convolutional, activate, read_activation
from fer.errors import InputError


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
