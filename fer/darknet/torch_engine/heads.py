"""Darknet's heads as torch modules: what a detector's last numbers say of boxes, by the kind of their section.

The rules are read off the programs' forward passes; trained is [yolo] only, by `fer.darknet.torch_engine.training`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import prod
from pathlib import Path

import torch
from torch import Tensor, nn

from fer.darknet.formats.cfg import Shape, head_classes
from fer.darknet.formats.section import Section, integer, number, numbers
from fer.darknet.torch_engine.boxes import decode
from fer.errors import InputError


class Head(ABC, nn.Module):
    """A detector's head: the layer before it as it is, and on request the boxes that it stands for."""

    def __init__(self, section: Section, shapes: Sequence[Shape]) -> None:
        super().__init__()
        self.classes = head_classes(section)
        if self.classes < 1:
            raise InputError(f"{section.where}: classes={self.classes} is not positive")

    def forward(self, x: Tensor) -> Tensor:
        return x

    @abstractmethod
    def decode(self, raw: Tensor, width: int, height: int) -> Tensor:
        """Return the boxes of a head's numbers (N, channels, rows, columns), cell by cell, row by row.

        (N, rows * columns * A, 5 + classes): the centre's x and y, width and height as fractions of the net's input of
        ``width`` x ``height`` pixels, objectness, the classes' probabilities if there is an object.
        """


class _Cells(Head):
    """A head with some boxes in every cell of a picture.

    ``anchors`` (A, 2) are those of its mask, width and height in pixels of the net's input; of [region] in cells.
    """

    anchors: Tensor
    #: Numbers of a box beside its classes.
    own = 5

    def __init__(self, section: Section, shapes: Sequence[Shape]) -> None:
        super().__init__(section, shapes)
        anchors, num = numbers(section, "anchors"), integer(section, "num", 1)
        # as in the program, whose anchors are a half where the cfg has none
        anchors += [0.5] * (2 * num - len(anchors))
        mask = numbers(section, "mask") or range(num)
        boxes = [anchors[2 * int(index) : 2 * int(index) + 2] for index in mask]
        if not all(0 < side < float("inf") for box in boxes for side in box):
            raise InputError(f"{section.where}: anchors={section.options.get('anchors')} are not all lengths")
        self.register_buffer("anchors", torch.tensor(boxes), persistent=False)

    def split(self, raw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return a head's numbers (N, rows, columns, A, own + classes), its cells (rows, columns, 1, 2) and grid (2).

        A cell is its column and row, the grid is the number of columns and rows.
        """
        n, _, rows, columns = raw.shape
        # in the anchors' float32 also under mixed precision, where a cell's number would leave the centre few bits
        x = (
            raw.to(self.anchors.dtype)
            .view(n, len(self.anchors), self.own + self.classes, rows, columns)
            .permute(0, 3, 4, 1, 2)
        )
        row, column = (torch.arange(length, device=x.device, dtype=x.dtype) for length in (rows, columns))
        cell = torch.stack(torch.meshgrid(column, row, indexing="xy"), dim=-1)[:, :, None]
        return x, cell, self.anchors.new_tensor([columns, rows])


class Yolo(_Cells):
    """YOLOv3's head and all later ones; with new_coords (Scaled-YOLOv4) the layer before has made all a sigmoid."""

    def __init__(self, section: Section, shapes: Sequence[Shape]) -> None:
        super().__init__(section, shapes)
        self.scale = number(section, "scale_x_y", 1)
        self.new_coords = bool(integer(section, "new_coords", 0))

    def decode(self, raw: Tensor, width: int, height: int) -> Tensor:
        x, cell, grid = self.split(raw)
        anchors = self.anchors * grid / self.anchors.new_tensor([width, height])
        box = decode(x[..., :4], cell, anchors, self.scale, self.new_coords) / grid.repeat(2)
        sure = x[..., 4:] if self.new_coords else x[..., 4:].sigmoid()
        return torch.cat([box, sure], dim=-1).flatten(1, 3)


class GaussianYolo(_Cells):
    """Gaussian YOLOv3's head (Choi et al. 2019): each of x, y, width and height has a second number, how unsure it is.

    A class's probability is multiplied by 1 - the mean of the four, as in AlexeyAB's program.
    """

    own = 9

    def __init__(self, section: Section, shapes: Sequence[Shape]) -> None:
        super().__init__(section, shapes)
        self.scale = number(section, "scale_x_y", 1)
        self.point = section.options.get("yolo_point", "center")
        if self.point not in _POINTS:
            raise InputError(f"{section.where}: yolo_point={self.point} is not one of {', '.join(_POINTS)}")

    def decode(self, raw: Tensor, width: int, height: int) -> Tensor:
        x, cell, grid = self.split(raw)
        anchors = self.anchors * grid / self.anchors.new_tensor([width, height])
        box = decode(x[..., :8:2], cell, anchors, self.scale) / grid.repeat(2)
        centre, size = box[..., :2], box[..., 2:]
        box = torch.cat([centre + _POINTS[self.point] * size, size], dim=-1)
        unsure = x[..., 1:8:2].sigmoid().mean(-1, keepdim=True)
        sure = x[..., 8:].sigmoid()
        return torch.cat([box, sure[..., :1], sure[..., 1:] * (1 - unsure)], dim=-1).flatten(1, 3)


#: Where the centre is from the point that a [Gaussian_yolo] finds, in widths and heights of the box.
_POINTS = {"center": 0.0, "left_top": 0.5, "right_bottom": -0.5}


class Region(_Cells):
    """YOLOv2's head; with tree= (YOLO9000) a class's probability is its own times those of all above it.

    Of a tree one class is left, the last in the file whose probability is over a half; AlexeyAB's program lists it by
    that probability alone, here as everywhere it is multiplied by the objectness.
    """

    def __init__(self, section: Section, shapes: Sequence[Shape]) -> None:
        super().__init__(section, shapes)
        self.softmax = bool(integer(section, "softmax", 0))
        # an objectness under a half counts as none
        self.clear = integer(section, "classfix", 0) == -1
        self.tree = _read_tree(section, self.classes) if "tree" in section.options else None

    def decode(self, raw: Tensor, width: int, height: int) -> Tensor:
        x, cell, grid = self.split(raw)
        box = decode(x[..., :4], cell, self.anchors) / grid.repeat(2)
        objectness, classes = x[..., 4:5].sigmoid(), x[..., 5:]
        if self.clear:
            objectness = objectness * (objectness >= 0.5)
        if self.tree is not None:
            classes = self._down_the_tree(classes, self.tree)
        elif self.softmax:
            classes = classes.softmax(-1)
        return torch.cat([box, objectness, classes], dim=-1).flatten(1, 3)

    @staticmethod
    def _down_the_tree(x: Tensor, parents: Sequence[int]) -> Tensor:
        """Return the probability of the one class (..., classes) that is left, 0 of the others."""
        x, start = x.clone(), 0
        for end in range(1, len(parents) + 1):
            # the children of one parent stand together, and after it
            if end == len(parents) or parents[end] != parents[start]:
                x[..., start:end] = x[..., start:end].softmax(-1)
                if (parent := parents[start]) >= 0:
                    x[..., start:end] *= x[..., parent : parent + 1]
                start = end
        sure = x > 0.5
        last = sure & (sure.flip(-1).cumsum(-1).flip(-1) == 1)
        return x * last


class Detection(Head):
    """YOLOv1's head: side x side cells that share their classes between their boxes; from numbers in a row.

    First come the classes of all cells, then the objectness of all boxes, then x, y, width and height of each.
    """

    def __init__(self, section: Section, shapes: Sequence[Shape]) -> None:
        super().__init__(section, shapes)
        if integer(section, "coords", 1) != 4:
            raise InputError(f"{section.where}: coords={integer(section, 'coords', 1)}: a box has 4: set coords=4")
        self.side, self.boxes = integer(section, "side", 7), integer(section, "num", 1)
        self.softmax, self.root = bool(integer(section, "softmax", 0)), bool(integer(section, "sqrt", 0))
        self.numbers = prod(shapes[0])

    def decode(self, raw: Tensor, width: int, height: int) -> Tensor:
        raw, side = raw.flatten(1).float(), self.side
        n, cells = len(raw), side * side
        classes, objectness, box = raw.split([cells * self.classes, cells * self.boxes, cells * self.boxes * 4], 1)
        classes = classes.view(n, side, side, 1, self.classes)
        if self.softmax:
            classes = classes.softmax(-1)
        box = box.view(n, side, side, self.boxes, 4)
        place = torch.arange(side, device=raw.device, dtype=raw.dtype)
        cell = torch.stack(torch.meshgrid(place, place, indexing="xy"), dim=-1)[:, :, None]
        size = box[..., 2:].square() if self.root else box[..., 2:]
        parts = [
            (box[..., :2] + cell) / side, size, objectness.view(n, side, side, self.boxes, 1),
            classes.expand(-1, -1, -1, self.boxes, -1),
        ]  # fmt: skip
        return torch.cat(parts, dim=-1).flatten(1, 3)


def _read_tree(section: Section, classes: int) -> list[int]:
    """Return each class's parent, -1 where it has none; the file is looked for from here and from the cfg's folders.

    Raises:
        InputError: it is not there, not a tree whose children come after their parents, or of other classes.
    """
    name = Path(section.options["tree"])
    cfg = Path(section.file or ".").parent
    path = next((path for path in (name, cfg / name, cfg.parent / name) if path.is_file()), None)
    if path is None:
        raise InputError(f"{section.where}: tree={name}: no such file here, beside the cfg or in the folder above it")
    try:
        lines = path.read_text("utf-8-sig", errors="replace").splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    parents: list[int] = []
    for row, line in enumerate(lines, 1):
        words = line.split()
        if not 0 < len(words) < 3:
            raise InputError(f"{path}:{row}: {line!a:.40} is no name and number of its parent")
        parent = int(words[1]) if len(words) == 2 and words[1].removeprefix("-").isdecimal() else -1
        if not -1 <= parent < len(parents):
            raise InputError(f"{path}:{row}: parent {parent} of {words[0]} does not come before it")
        parents.append(parent)
    if len(parents) != classes:
        raise InputError(f"{path}: {len(parents)} classes, but {section.where} has classes={classes}")
    return parents
