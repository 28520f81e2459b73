"""Parts of a network that are not trained, by the names of their parameters: for a whole run or its first epochs."""

import difflib
from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch.nn.modules.batchnorm import _NormBase

from fer.errors import InputError
from fer.models.networks import FaceNetwork


class Freezing:
    """Keeps the parameters of a network as they are whose names fit one of some patterns, such as ``layer1.*``.

    Names are those of the network's own ``named_parameters()``. Batch norms of which all is frozen use their running
    statistics and leave them as they are. ``unfreeze_epoch`` is the number of epochs after which all is trained, None
    for never. Until then the gradients are computed and dropped: each process of a distributed run must give all of
    those that it has said it would.

    Raises:
        InputError: a pattern that fits nothing, or nothing is left to train.
    """

    def __init__(self, net: FaceNetwork, patterns: Sequence[str] | None, unfreeze_epoch: int | None = None) -> None:
        self._network, self._patterns, self._unfreeze_epoch = net.network, patterns or (), unfreeze_epoch
        named = dict(net.network.named_parameters())
        for pattern in self._patterns:
            if not any(fnmatchcase(name, pattern) for name in named):
                raise InputError(f"freeze: {pattern} fits no parameter of {net.name}{_nearest(pattern, list(named))}")
        #: What stays as it is.
        self.frozen = [weight for name, weight in named.items() if self._fits(name)]
        if self.frozen and len(self.frozen) == len(named):
            raise InputError(f"freeze=[{','.join(self._patterns)}] leaves nothing of {net.name} to train")
        if unfreeze_epoch is None:
            for weight in self.frozen:
                weight.requires_grad_(False)

    def _fits(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self._patterns)

    def _is_on(self, epoch: int) -> bool:
        return bool(self.frozen) and (self._unfreeze_epoch is None or epoch < self._unfreeze_epoch)

    def set_modes(self, epoch: int) -> None:
        """Put frozen batch norms into evaluation mode, or from the epoch that frees them on into training mode."""
        for path, module in self._network.named_modules() if self.frozen else ():
            # what has no parameters is frozen where its weight would be
            names = [name for name, _ in module.named_parameters(path)] or [f"{path}.weight"]
            if isinstance(module, _NormBase) and all(map(self._fits, names)):
                module.train(not self._is_on(epoch))

    def drop_gradients(self, epoch: int) -> None:
        """Take the gradients of frozen parameters away, before they are measured, clipped and stepped by."""
        if self._is_on(epoch):
            for weight in self.frozen:
                weight.grad = None

    def __len__(self) -> int:
        """Return the number of values that are frozen."""
        return sum(weight.numel() for weight in self.frozen)


def _nearest(pattern: str, names: list[str]) -> str:
    parts = {name.rpartition(".")[0] for name in names} - {""}
    if any(name.startswith(f"{pattern}.") for name in names):
        return f": give {pattern}.*"
    close = difflib.get_close_matches(pattern, [*names, *(f"{part}.*" for part in sorted(parts))], n=3, cutoff=0.4)
    return f"; the nearest are {', '.join(close or names[:3])}"
