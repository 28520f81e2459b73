"""A parsed .cfg as a torch network: the forward pass, a copy that is fast at inference, and a table of its layers."""

from collections.abc import Sequence
from copy import deepcopy
from math import prod
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from fer.darknet.design.fit import check
from fer.darknet.design.options import require_known, require_supported
from fer.darknet.formats.cfg import HEADS, Layer, Section, Shape, classes_of, input_shape, integer, integers, layers
from fer.darknet.torch_engine.heads import Head
from fer.darknet.torch_engine.modules import MODULES, Softmax
from fer.darknet.torch_engine.weighted import Convolutional, Weighted
from fer.errors import InputError

# Numbers in one layer's weights or output for one photo, 1 GiB; the largest layer of VGG-16 has 0.4 of it.
_MAX_NUMBERS = 2**28


class DarknetNetwork(nn.Module):
    """The layers of a cfg, numbered as the program does; a classifier, a detector or, with neither head, features.

    ``layers[i]`` is layer i, ``inputs[i]`` the numbers of the layers that it takes, -1 being the photo. ``size`` is the
    input's (width, height, channels), ``classes`` the number of classes or None.

    Raises:
        InputError: a section, an option or a value that is unknown, unsupported or does not fit, with its line.
    """

    def __init__(self, sections: Sequence[Section]) -> None:
        super().__init__()
        parsed = layers(sections)
        net = sections[0]
        require_known(net)
        self.sections = list(sections)
        self.size = input_shape(sections)
        for layer in parsed:
            require_supported(layer.section)
            if (largest := max(layer.floats, prod(layer.shape))) > _MAX_NUMBERS:
                raise InputError(
                    f"{layer.section.where}: would take {4 * largest / 2**30:,.0f} GiB; make it or the input smaller"
                )
        headed = any(layer.kind in (*HEADS, "softmax") for layer in parsed)
        self.classes = classes_of(sections) if headed else None
        if self.classes is not None:
            check(sections, self.classes)
        shapes = [layer.shape for layer in parsed] + [self.size]  # the last, at -1, is the photo's
        self.inputs = [_inputs(layer.section, layer.index) for layer in parsed]
        modules = [
            MODULES[layer.kind](layer.section, [shapes[i] for i in inputs])
            for layer, inputs in zip(parsed, self.inputs, strict=True)
        ]
        for module, layer in zip(modules, parsed, strict=True):
            if isinstance(module, Convolutional) and "share_index" in layer.section.options:
                source = integers(layer.section, "share_index")[0]
                module.share(cast(Convolutional, modules[source if source >= 0 else layer.index + source]))
        self.layers = nn.ModuleList(modules)
        #: Numbers of the layers that are heads.
        self.heads = [i for i, module in enumerate(modules) if isinstance(module, Head)]
        self._require_last_softmax(parsed)
        self._stops = [integer(layer.section, "stopbackward", 0) for layer in parsed]
        #: How many iterations a training has done, for stopbackward=.
        self.iteration = 0
        self._frozen = 0
        self._last_use = {i: user for user, inputs in enumerate(self.inputs) for i in inputs}

    def freeze(self) -> bool:
        """Leave the layers before the last stopbackward=1 as they are, for good; return whether there are any.

        As on the program's GPUs their batch normalisation takes its rolling numbers, which they keep.
        """
        self._frozen = max((i for i, stop in enumerate(self._stops) if stop == 1), default=0)
        for module in self.layers[: self._frozen]:
            module.requires_grad_(False)
        return self.train(self.training)._frozen > 0

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        for module in self.layers[: self._frozen]:
            module.eval()
        return self

    def forward(self, photos: Tensor) -> Tensor | list[Tensor]:
        """Return what the net says of photos (N, channels, height, width), RGB in 0..1.

        A classifier: probabilities (N, classes), in training their logits. A detector: boxes (N, all, 5 + classes) of
        all heads in turn as `Yolo.decode` has them, in training each head's raw numbers. Else the last layer's output.
        """
        outputs = {-1: photos}
        raw: list[Tensor] = []
        stop = self._stop() if self.training else -1
        for i, (module, inputs) in enumerate(zip(self.layers, self.inputs, strict=True)):
            outputs[i] = module(*(outputs[number] for number in inputs))
            if i == stop:
                outputs = {number: _Unmoved.apply(output) for number, output in outputs.items()}
                raw = [_Unmoved.apply(head) for head in raw]
            if i in self.heads:
                raw.append(outputs[i])
            for number in inputs:
                if self._last_use[number] == i:
                    outputs.pop(number, None)
        if not raw:
            return outputs[i] if self.classes is None else outputs[i].flatten(1)
        if self.training:
            return raw
        height, width = photos.shape[2:]
        decoded = []
        for i, x in zip(self.heads, raw, strict=True):
            head = self.layers[i]
            assert isinstance(head, Head)
            decoded.append(head.decode(x, width, height))
        return torch.cat(decoded, 1)

    def _stop(self) -> int:
        """Return the last layer that no gradient reaches, -1 without one.

        stopbackward=1 is for good, a higher number for so many iterations, as on the program's GPUs; on its CPUs every
        one is for good. Weights that stand still decay on, but for those of `freeze`.
        """
        return max((i for i, stop in enumerate(self._stops) if stop == 1 or stop > self.iteration), default=-1)

    def _require_last_softmax(self, parsed: Sequence[Layer]) -> None:
        ends = [at for at, layer in enumerate(parsed) if isinstance(self.layers[layer.index], Softmax)]
        for after in parsed[ends[0] + 1 :] if ends else ():
            if after.kind != "cost":
                raise InputError(f"{after.section.where}: follows a [softmax], which only a [cost] may")


class _Unmoved(torch.autograd.Function):
    """Numbers as they are, with a gradient of zeros: what they were made by stays, and has a gradient all the same."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, above: Tensor) -> Tensor:
        return torch.zeros_like(above)


def fuse(network: DarknetNetwork) -> DarknetNetwork:
    """Return a copy for inference: batch normalisation in the convolutions, no gradients, channels last in memory.

    It gives the same to rounding, in less time (benchmarks); its weights can't be saved as .weights.
    """
    fused = deepcopy(network).eval().requires_grad_(False)
    for module in fused.layers:
        if isinstance(module, Weighted):
            module.fold()
    return fused.to(memory_format=torch.channels_last)


def summary(sections: Sequence[Section]) -> str:
    """Return a table of the layers as AlexeyAB's program prints it, width x height x channels, and its BFLOPs."""
    parsed = layers(sections)
    shapes = [layer.shape for layer in parsed] + [input_shape(sections)]
    lines = ["layer           filters   size/stride              input                output"]
    total = 0.0
    for layer in parsed:
        inputs = _inputs(layer.section, layer.index)
        billions = operations(layer.section, shapes[inputs[0]], layer.shape) / 1e9
        total += billions
        line = f"{layer.index:5d} {layer.kind:13s} {_detail(layer.section, layer.shape, inputs):20s} "
        line += f"{_size(shapes[inputs[0]])} -> {_size(layer.shape)}"
        lines.append(line + (f" {billions:6.3f} BF" if billions else ""))
    return "\n".join(
        [*lines, f"Total BFLOPs {total:.3f}, {sum(layer.floats for layer in parsed):,} numbers in .weights"]
    )


def operations(section: Section, before: Shape, after: Shape) -> int:
    """Return the operations of a layer for one photo, in the units that AlexeyAB's program adds up as BFLOPs.

    A multiplication and an addition count as two in convolutions; a pooling's window and a shortcut's addend count one
    a number; connected layers and all others are not counted.
    """
    if section.kind == "convolutional":
        size, groups = integer(section, "size", 1), integer(section, "groups", 1)
        return 2 * prod(after) * before[2] // groups * size**2
    if section.kind in ("maxpool", "local_avgpool"):
        return prod(after) * integer(section, "size", integer(section, "stride", 1)) ** 2
    return prod(after) * len(integers(section, "from")) if section.kind == "shortcut" else 0


def _inputs(section: Section, index: int) -> tuple[int, ...]:
    """Return the numbers of the layers that layer ``index`` takes; `layers` has seen that they are there."""
    key = {"route": "layers", "shortcut": "from", "sam": "from", "scale_channels": "from"}.get(section.kind, "")
    named = integers(section, key)
    # as the program, which takes the first only
    named = named if section.kind in ("route", "shortcut") else named[:1]
    sources = tuple(number if number >= 0 else index + number for number in named)
    return sources if section.kind == "route" else (index - 1, *sources)


def _detail(section: Section, shape: Shape, inputs: Sequence[int]) -> str:
    if section.kind in ("convolutional", "maxpool"):
        stride = integer(section, "stride", 1)
        size = integer(section, "size", 1 if section.kind == "convolutional" else stride)
        filters = shape[2] if section.kind == "convolutional" else ""
        return f"{filters:>5}   {size:2d} x{size:2d} /{stride:2d}"
    if section.kind == "upsample":
        return f"{'':8}{integer(section, 'stride', 2):2d}x"
    if section.kind in ("route", "shortcut"):
        half = f" 1/{section.options['groups']}" if "groups" in section.options else ""
        return " ".join(map(str, inputs if section.kind == "route" else inputs[1:])) + half
    return ""


def _size(shape: Shape) -> str:
    return "{:4d} x{:4d} x{:4d}".format(*shape)
