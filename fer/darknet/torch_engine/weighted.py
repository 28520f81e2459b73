"""Darknet's layers that have weights, as torch modules: convolutions, connected layers, and what follows in them.

Measured and read off the programs: eps inside the root and the unbiased variance as in AlexeyAB's CPU code; Debian's
program differs by sqrt(v) + 1e-6.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fer.darknet.formats.cfg import Shape, strides
from fer.darknet.formats.section import Section, integer, positive
from fer.errors import InputError

#: Name in the cfg to the function of (tensor, whether it may overwrite it).
ACTIVATIONS: dict[str, Callable[[Tensor, bool], Tensor]] = {
    "linear": lambda x, inplace: x,
    "leaky": lambda x, inplace: F.leaky_relu(x, 0.1, inplace),
    "relu": F.relu,
    "relu6": F.relu6,
    "ramp": lambda x, inplace: x.clamp(min=0) + 0.1 * x,
    "mish": F.mish,
    "swish": F.silu,
    "logistic": lambda x, inplace: x.sigmoid_() if inplace else x.sigmoid(),
}


def read_activation(section: Section, default: str) -> str:
    """Return the name of a section's activation, one of ACTIVATIONS.

    Raises:
        InputError: there is none of that name.
    """
    name = section.options.get("activation", default)
    if name not in ACTIVATIONS:
        raise InputError(f"{section.where}: activation={name} is not one of {', '.join(ACTIVATIONS)}")
    return name


def activate(x: Tensor, name: str) -> Tensor:
    """Return the activation of a layer's own new tensor, which it may overwrite."""
    # of these autograd needs the result only, of mish and swish what went in
    result_only = name in ("leaky", "relu", "relu6", "logistic")
    return ACTIVATIONS[name](x, result_only or not torch.is_grad_enabled())


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


class Stored(ABC, nn.Module):
    """A layer that has numbers in a .weights file."""

    @abstractmethod
    def stored(self) -> dict[str, Tensor]:
        """Return the layer's tensors in the order of a .weights file."""


class Weighted(Stored):
    """A convolution or a connected layer, its batch normalisation where it has one, and its activation."""

    def __init__(self, section: Section, linear: nn.Conv2d | nn.Linear) -> None:
        super().__init__()
        self.linear = linear
        self.activation = read_activation(section, "logistic")
        self.norm = BatchNorm(len(linear.weight), section.where) if linear.bias is None else None
        inputs = linear.weight[0].numel()
        nn.init.uniform_(linear.weight, -sqrt(2 / inputs), sqrt(2 / inputs))
        if linear.bias is not None:
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x)
        return activate(x if self.norm is None else self.norm(x), self.activation)

    def stored(self) -> dict[str, Tensor]:
        # a normalised layer's bias is its norm's
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
    """A convolution, also one whose weights and normalisation are another's (share_index=)."""

    def __init__(self, section: Section, shapes: Sequence[Shape]) -> None:
        filters, size, groups = (integer(section, key, 1) for key in ("filters", "size", "groups"))
        padding = size // 2 if integer(section, "pad", 0) else integer(section, "padding", 0)
        if padding < 0:
            raise InputError(f"{section.where}: padding={padding} is negative")
        dilation = positive(section, "dilation", 1) if size > 1 else 1
        if dilation > 1 and 2 * padding != size - 1:
            raise InputError(f"{section.where}: dilation={dilation} needs an odd size= and pad=1, as in the program")
        if dilation * size > 2 * max(shapes[0][:2]) + size:
            raise InputError(f"{section.where}: dilation={dilation} reaches too far beyond its input")
        right, down = strides(section)
        bias = not integer(section, "batch_normalize", 0)
        linear = nn.Conv2d(shapes[0][2], filters, size, (down, right), padding * dilation, dilation, groups, bias=bias)
        super().__init__(section, linear)
        self._source: tuple[Convolutional, ...] = ()

    def share(self, source: "Convolutional") -> None:
        """Take the weights and the normalisation of another layer for good, trained or not."""
        self.linear.weight, self.linear.bias, self.norm = source.linear.weight, source.linear.bias, source.norm
        # in a tuple, as a module of its own it would be counted twice
        self._source = (source,)

    def stored(self) -> dict[str, Tensor]:
        return {} if self._source else super().stored()

    @torch.no_grad()
    def fold(self) -> None:
        if not self._source:
            super().fold()
            return
        # layers fold in turn, so that the other, which comes before, has done so
        self.share(self._source[0])


class Connected(Weighted):
    def __init__(self, section: Section, shapes: Sequence[Shape]) -> None:
        width, height, channels = shapes[0]
        bias = not integer(section, "batch_normalize", 0)
        super().__init__(section, nn.Linear(width * height * channels, integer(section, "output", 1), bias=bias))

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x.flatten(1))[..., None, None]
        return activate(x if self.norm is None else self.norm(x), self.activation)

    def stored(self) -> dict[str, Tensor]:
        if self.norm is None:
            return super().stored()
        return {"bias": self.norm.bias, "weight": self.linear.weight, **self.norm.statistics()}


class Local(Stored):
    """A convolution with other weights at every place."""

    def __init__(self, section: Section, shapes: Sequence[Shape]) -> None:
        super().__init__()
        width, height, channels = shapes[0]
        filters, self.size, self.stride = (integer(section, key, 1) for key in ("filters", "size", "stride"))
        self.padding = integer(section, "pad", 0)
        self.columns, self.rows = ((n + 2 * self.padding - self.size) // self.stride + 1 for n in (width, height))
        self.activation = read_activation(section, "logistic")
        inputs = channels * self.size**2
        self.weight = nn.Parameter(torch.empty(self.rows * self.columns, filters, inputs))
        nn.init.uniform_(self.weight, -sqrt(2 / inputs), sqrt(2 / inputs))
        self.bias = nn.Parameter(torch.zeros(filters, self.rows, self.columns))

    def forward(self, x: Tensor) -> Tensor:
        windows = F.unfold(x, self.size, padding=self.padding, stride=self.stride)
        x = torch.einsum("pfi,nip->nfp", self.weight, windows).view(-1, *self.bias.shape)
        return activate(x + self.bias, self.activation)

    def stored(self) -> dict[str, Tensor]:
        return {"bias": self.bias, "weight": self.weight}


class Normalization(Stored):
    """Batch normalisation as a layer of its own."""

    def __init__(self, section: Section, shapes: Sequence[Shape]) -> None:
        super().__init__()
        self.norm = BatchNorm(shapes[0][2], section.where)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x)

    def stored(self) -> dict[str, Tensor]:
        return {"bias": self.norm.bias, **self.norm.statistics()}
