"""What a training step adds to cross entropy: softened targets, mixed faces, rare classes, teachers. Off by default."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms.v2 import CutMix, MixUp

from fer.errors import InputError


class Recipe(nn.Module):
    """The options of conf/recipe as functions of a batch; ``options`` may be empty, which is cross entropy alone.

    ``counts`` are the training faces of each class, which class weights and logit adjustment need.

    Raises:
        InputError: a class has no training face.
    """

    _weights: Tensor | None
    _shift: Tensor | None

    def __init__(self, options: dict[str, Any], num_classes: int, counts: Sequence[int] | None = None) -> None:
        super().__init__()
        self._smoothing, self._share = options.get("label_smoothing", 0.0), options.get("mix", 0.0)
        mixers = {MixUp: options.get("mixup", 0.0), CutMix: options.get("cutmix", 0.0)}
        self._mixers = [mixer(alpha=alpha, num_classes=num_classes) for mixer, alpha in mixers.items() if alpha]
        self._teacher_weight = options.get("teacher_weight", 0.9)
        self._temperature = options.get("teacher_temperature", 2.0)
        weights, shift = _balance(options.get("class_weights", "none"), options.get("logit_adjustment", 0.0), counts)
        # buffers, so that they are where the logits are; not in checkpoints, which hold the counts
        self.register_buffer("_weights", weights, persistent=False)
        self.register_buffer("_shift", shift, persistent=False)

    def mix(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return float images (N, C, H, W) and their targets: mixed with (N, classes), or both as given.

        Targets are labels (N,) or probabilities (N, classes). All of a batch are mixed alike (Zhang et al. 2017, Yun
        et al. 2019), or none.
        """
        if not self._share or torch.rand(()) >= self._share:
            return images, targets
        return self._mixers[int(torch.randint(len(self._mixers), ()))](images, targets)

    def loss(self, logits: Tensor, targets: Tensor, teacher_probabilities: Tensor | None = None) -> Tensor:
        """Return the mean cross entropy of logits (N, classes) with labels (N,) or probabilities (N, classes).

        ``teacher_probabilities`` are the teachers' softened ones (N, classes); with them it is (1 - w) * cross entropy
        + w * T^2 * KL(teachers, softmax(logits / T)), as in Hinton et al. 2015.
        """
        adjusted = logits if self._shift is None else logits + self._shift
        if self._weights is None:
            loss = functional.cross_entropy(adjusted, targets, label_smoothing=self._smoothing)
        else:
            # the mean over faces: torch's own divides by the batch's weights, but only where targets are labels
            loss = functional.cross_entropy(
                adjusted, targets, self._weights, reduction="none", label_smoothing=self._smoothing
            ).mean()
        if teacher_probabilities is None:
            return loss
        softened = (logits.float() / self._temperature).log_softmax(1)
        distance = self._temperature**2 * functional.kl_div(softened, teacher_probabilities, reduction="batchmean")
        return (1 - self._teacher_weight) * loss + self._teacher_weight * distance


def _balance(weights: str, tau: float, counts: Sequence[int] | None) -> tuple[Tensor | None, Tensor | None]:
    """Return the loss weight of each class, 1 in the mean over faces, and tau * log prior (Menon et al. 2020)."""
    if weights == "none" and not tau:
        return None, None
    n = torch.tensor(counts, dtype=torch.float)
    if n.min() == 0:
        raise InputError(
            f"recipe.class_weights and recipe.logit_adjustment need training faces of each class, but class "
            f"{int(n.argmin())} (counted from 0) has none: leave both out"
        )
    prior = n / n.sum()
    return (None if weights == "none" else 1 / (len(n) * prior)), (tau * prior.log() if tau else None)
