"""Convolutions as torch's library for CPUs, oneDNN, runs them fastest: their weights in its own order, the leaky or
other activation in the same pass over memory. These are the operators that torch.compile would put in their place."""

import torch
from torch import Tensor, nn

from fer.darknet.torch_engine.network import DarknetNetwork
from fer.darknet.torch_engine.weighted import Convolutional, activate

#: Name of an activation in the cfg to oneDNN's and its parameters; those that are not here follow the convolution.
ACTIVATIONS: dict[str, tuple[str, list[float]]] = {
    "linear": ("none", []), "leaky": ("leaky_relu", [0.1]), "relu": ("relu", []), "logistic": ("sigmoid", []),
    "swish": ("swish", []),
}  # fmt: skip


class Packed(nn.Module):
    """A folded convolution and its activation for inference on a CPU, in float32 with the channels last in memory.

    The order of the weights that suits one shape of the input may be a hundred times slower with another batch size,
    so each new shape orders them anew, in about the time that a plain convolution takes to do so in every call.
    """

    def __init__(self, layer: Convolutional) -> None:
        super().__init__()
        self.linear = layer.linear
        self._after = None if layer.activation in ACTIVATIONS else layer.activation
        self._activation = ACTIVATIONS.get(layer.activation, ("none", []))
        self._shape: torch.Size | None = None

    def forward(self, x: Tensor) -> Tensor:
        conv = self.linear
        x = x.contiguous(memory_format=torch.channels_last)
        how = conv.padding, conv.stride, conv.dilation, conv.groups
        if x.shape != self._shape:
            # another thread that comes in between finds weights that are right, at worst slow
            self._weight = torch.ops.mkldnn._reorder_convolution_weight(conv.weight, *how, x.shape)
            self._shape = x.shape
        x = torch.ops.mkldnn._convolution_pointwise(x, self._weight, conv.bias, *how, *self._activation, "")
        if self._after is None:
            return x
        return mish_(x) if self._after == "mish" else activate(x, self._after)


def mish_(x: Tensor) -> Tensor:
    """Overwrite x with x tanh(softplus(x)), as precise as torch's own and in a quarter of its time.

    With s = sigmoid(x) the hyperbolic tangent is h / (1 - h), where h = s - s^2 / 2.
    """
    h = x.sigmoid()
    h.addcmul_(h, h, value=-0.5)
    return x.mul_(h).div_(h.neg_().add_(1))


def pack(network: DarknetNetwork) -> None:
    """Give a fused network, on a CPU for good, packed convolutions; where torch has no oneDNN it stays as it is."""
    if torch.backends.mkldnn.is_available():
        for i, layer in enumerate(network.layers):
            if isinstance(layer, Convolutional):
                network.layers[i] = Packed(layer)
