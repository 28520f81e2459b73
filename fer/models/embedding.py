"""What a network's last layer names a face by."""

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fer.errors import InputError
from fer.models.networks import FaceNetwork


class Embedder:
    """Gives the input of the layer that gives a network's logits, while the network runs; several threads may call it.

    Of a layer that sees a map or a sequence it is the mean over the places, of several layers, whose logits are
    averaged, the mean of their inputs.
    """

    def __init__(self, net: FaceNetwork) -> None:
        self._net, self._lock, self._thread = net, threading.Lock(), threading.local()
        self._heads: list[nn.Module] | None = None

    def __call__(self, run: Callable[[], Tensor]) -> tuple[Tensor, Tensor]:
        """Return what ``run`` gives, logits (N, classes), and the embeddings (n, D) of all faces that the network saw.

        Raises:
            InputError: it is not known which layer gives the logits, or the network does not use it once.
        """
        with self._lock:
            # once and for all, as no hook may come or go while another thread runs the network
            if self._heads is None:
                head = self._net.head
                self._heads = list(head) if isinstance(head, nn.ModuleList) else [head]
                for layer in self._heads:
                    layer.register_forward_pre_hook(self._keep)
        seen: list[tuple[nn.Module, Tensor]] = []
        self._thread.seen = seen
        try:
            logits = run()
        finally:
            self._thread.seen = None
        found = [_of_places(layer, given) for layer, given in seen]
        sizes = {embedding.shape for embedding in found}
        if len(found) != len(self._heads) or len(sizes) != 1 or len(found[0]) % max(1, len(logits)):
            raise InputError(
                f"embed=true: {self._net.name} does not use the layer that gives its logits once, so there is no one "
                "embedding; leave it out"
            )
        return logits, torch.stack(found).mean(0)

    def _keep(self, layer: nn.Module, given: tuple[Any, ...]) -> None:
        if (seen := getattr(self._thread, "seen", None)) is not None:
            seen.append((layer, given[0]))


def _of_places(layer: nn.Module, given: Tensor) -> Tensor:
    if isinstance(layer, nn.Conv2d):
        return given.flatten(2).mean(2)
    return given if given.ndim == 2 else given.flatten(1, -2).mean(1)
