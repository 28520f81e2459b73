"""Sharpness-aware minimisation: a step by the gradient at the worst point near the weights."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.optim import Optimizer


class SAM(Optimizer):
    """Steps ``base`` by the gradient at w + rho * g / ||g||, where g is the gradient at w (Foret et al. 2020, eq. 2).

    The closure is called twice; while `ascended` is true, at the second point. The network's buffers, such as the
    statistics of batch norm, are those of the first call. Its state is the base's.
    """

    def __init__(self, base: Optimizer, rho: float, net: nn.Module) -> None:
        super().__init__(base.param_groups, base.defaults)
        self.base, self._rho, self._net = base, rho, net
        self.ascended = False
        self._share()

    def _share(self) -> None:
        self.param_groups, self.state = self.base.param_groups, self.base.state

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor]) -> Tensor:  # type: ignore[override]  # there is no step without one
        closure = torch.enable_grad()(closure)
        loss = closure()
        weights = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        gradients, buffers = [p.grad for p in weights], list(self._net.buffers())
        # copies, because taking away what was added would not give the same weights again
        saved = [values.clone() for values in (*weights, *buffers)]
        # stays on the device: reading it would wait
        scale = self._rho / (get_total_norm(gradients) + 1e-12)
        torch._foreach_add_(weights, torch._foreach_mul(gradients, scale))
        self.ascended = True
        try:
            closure()
        finally:
            self.ascended = False
            for values, before in zip([*weights, *buffers], saved, strict=True):
                values.copy_(before)
        self.base.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        return self.base.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.base.load_state_dict(state_dict)
        self._share()
