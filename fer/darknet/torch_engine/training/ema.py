"""ema_alpha= of [net]: a moving average of the convolutions that takes their place near the end of a training."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from fer.darknet.formats.section import Section, integer, number
from fer.darknet.torch_engine.network import DarknetNetwork
from fer.darknet.torch_engine.weighted import Convolutional
from fer.errors import InputError

#: Iterations before the end at which the average becomes the weights, which are then trained on.
LAST = 1000


class Average:
    """The moving average of ``network``'s convolutions: weights, biases and scales, not the rolling statistics.

    AlexeyAB's rule: from iteration max_batches / 2 on it is alpha * average + (1 - alpha) * weights, beginning with the
    weights; 1,000 iterations before the end it takes their place.

    Raises:
        InputError: ema_alpha= is not within 0 and 1, or the training is too short for it.
    """

    def __init__(self, net: Section, network: DarknetNetwork) -> None:
        self.alpha, max_batches = number(net, "ema_alpha", 0), integer(net, "max_batches")
        self._start, self._apply = max_batches // 2, max_batches - LAST
        if not 0 <= self.alpha < 1:
            raise InputError(f"{net.where}: ema_alpha={self.alpha:g} is not within 0 and 1")
        if self._start >= self._apply:
            raise InputError(
                f"{net.where}: ema_alpha= averages from max_batches / 2 to {LAST:,} before "
                f"max_batches={max_batches:,}, which is no iteration: set max_batches= over {2 * LAST:,} or ema_alpha=0"
            )
        self._network = network
        #: Beginning with the convolutions' weights; empty before.
        self.values: list[Tensor] = []

    @torch.no_grad()
    def update(self, iteration: int) -> None:
        """Take the weights after an iteration, the first being 1, or give them back the average."""
        if iteration < self._start:
            return
        weights = self._weights()
        if not self.values:
            self.values = [weight.clone() for weight in weights]
        if iteration == self._apply:
            torch._foreach_copy_(weights, self.values)
        elif iteration < self._apply:
            torch._foreach_lerp_(self.values, weights, 1 - self.alpha)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Put the average in the place of the weights for a while."""
        weights = self._weights()
        before = [weight.clone() for weight in weights]
        with torch.no_grad():
            torch._foreach_copy_(weights, self.values)
            yield
            torch._foreach_copy_(weights, before)

    def _weights(self) -> list[Tensor]:
        layers = [layer for layer in self._network.layers if isinstance(layer, Convolutional)]
        return [weight.detach() for layer in layers for weight in layer.parameters()]
