"""What a training step does beside network and loss: it mixes faces and learns from teachers. Off by default."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2 import CutMix, MixUp


class Recipe:
    """The options of conf/recipe as functions of a batch; ``options`` may be empty, which does nothing."""

    def __init__(self, options: dict[str, Any], num_classes: int) -> None:
        self._share = options.get("mix", 0.0)
        mixers = {MixUp: options.get("mixup", 0.0), CutMix: options.get("cutmix", 0.0)}
        self._mixers = [mixer(alpha=alpha, num_classes=num_classes) for mixer, alpha in mixers.items() if alpha]
        self._teacher_weight = options.get("teacher_weight", 0.9)
        self._temperature = options.get("teacher_temperature", 2.0)

    def mix(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return float images (N, C, H, W) and their targets: mixed with (N, classes), or both as given.

        Targets are labels (N,) or probabilities (N, classes). All of a batch are mixed alike (Zhang et al. 2017, Yun
        et al. 2019), or none.
        """
        if not self._share or torch.rand(()) >= self._share:
            return images, targets
        return self._mixers[int(torch.randint(len(self._mixers), ()))](images, targets)

    def distil(self, loss: Tensor, logits: Tensor, teacher_probabilities: Tensor) -> Tensor:
        """Return (1 - w) * loss + w * T^2 * KL(teachers, softmax(logits / T)), as in Hinton et al. 2015.

        ``loss`` is the labels' part, ``teacher_probabilities`` are the teachers' softened ones (N, classes).
        """
        softened = (logits.float() / self._temperature).log_softmax(1)
        distance = self._temperature**2 * functional.kl_div(softened, teacher_probabilities, reduction="batchmean")
        return (1 - self._teacher_weight) * loss + self._teacher_weight * distance
