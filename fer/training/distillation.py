"""Teachers: trained networks whose mean prediction another one learns."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Teachers:
    """Return the mean of some networks' softmax(logits / temperature): faces (N, C, H, W) to (N, classes).

    Faces are floats in [0, 1], already cropped. Not a module, so that it is in no checkpoint and never trained.
    """

    def __init__(self, nets: Sequence[nn.Module], temperature: float) -> None:
        self._nets = [net.eval().requires_grad_(False) for net in nets]
        self._temperature = temperature

    def __deepcopy__(self, memo: dict[int, Any]) -> "Teachers":
        # the averaged copy of a student needs none of its own
        return self

    def to(self, device: torch.device) -> None:
        """Move the networks, channels last, which is the faster order for them."""
        for net in self._nets:
            # torch's stubs lack this form
            net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.no_grad()
    def __call__(self, faces: Tensor) -> Tensor:
        return torch.stack([(net(faces).float() / self._temperature).softmax(1) for net in self._nets]).mean(0)
