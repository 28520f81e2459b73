"""Loss and confusion counts of an epoch, over all ranks."""

import torch
from torch import Tensor, nn
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassConfusionMatrix

from fer.evaluation.metrics import metrics_from_confusion

#: Steps whose outputs are kept for the metrics of training, which are updated all at once.
_STEPS = 1000


class EpochScores(nn.Module):
    """Collects what the steps of an epoch gave, on the device, and says at its end how good they were."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        # as it is: by default a loss that is NaN would be left out of the mean, and each step would wait for the device
        self.loss = MeanMetric(nan_strategy="disable")
        # no argument checks: they would wait for the device in every step
        self.counts = MulticlassConfusionMatrix(num_classes, validate_args=False)
        self._steps: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Take the mean loss, logits (N, classes) and labels (N,) of a step; the metrics are updated at once."""
        self.loss.update(loss, len(labels))
        self.counts.update(logits.argmax(1), labels)

    def add_later(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """As `add`, but for many steps together: an update costs as much as a small network's last layers."""
        self._steps.append((loss.detach(), logits.detach(), labels))
        if len(self._steps) == _STEPS:
            self._flush()

    def _flush(self) -> None:
        if not self._steps:
            return
        losses, logits, labels = zip(*self._steps, strict=True)
        sizes = torch.tensor([len(label) for label in labels], device=losses[0].device)
        self.loss.update(torch.stack(losses), sizes)
        self.counts.update(torch.cat(logits).argmax(1), torch.cat(labels))
        self._steps.clear()

    def confusion(self) -> Tensor:
        """Return the counts (classes, classes) so far, rows true, on the CPU."""
        return self.counts.compute().cpu()

    def finish(self) -> dict[str, Tensor | float]:
        """Return loss, acc, balanced_acc and macro_f1 of the epoch, and begin the next one."""
        self._flush()
        metrics = metrics_from_confusion(self.confusion().numpy())
        scores = {
            "loss": self.loss.compute(), "acc": metrics["accuracy"], "balanced_acc": metrics["balanced_accuracy"],
            "macro_f1": metrics["macro_f1"],
        }  # fmt: skip
        self.loss.reset()
        self.counts.reset()
        return scores
