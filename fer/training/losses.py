"""Losses of a training step: logits (N, classes), with labels (N,) or probabilities (N, classes), to a scalar."""

import copy
import inspect
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from fer.errors import InputError
from fer.targets import build, locate, takes

#: Arguments that a loss is given where it takes them: how many classes there are, and the training faces of each.
OFFERED = ("num_classes", "counts")


class CrossEntropy(nn.Module):
    """The mean cross entropy of faces.

    Args:
        counts: training faces of each class, which the last two arguments need; the framework gives them.
        label_smoothing: the share of the target that goes to all classes alike, 0 to below 1.
        class_weights: "none", or "balanced": a face counts n / (classes * faces of its class), which is 1 in the mean.
        logit_adjustment: tau, 0 or more: tau * log(share of the class) is added to the logits (Menon et al. 2020).

    Raises:
        InputError: a value is out of range, or a class that is to be balanced has no training face.
    """

    _weights: Tensor | None
    _shift: Tensor | None

    def __init__(
        self,
        counts: Sequence[int] | None = None,
        label_smoothing: float = 0.0,
        class_weights: Literal["none", "balanced"] = "none",
        logit_adjustment: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise InputError(f"loss.label_smoothing={label_smoothing} is not a fraction from 0 to below 1")
        if logit_adjustment < 0:
            raise InputError(f"loss.logit_adjustment={logit_adjustment} is not a factor of 0 (off) or more")
        self._smoothing = label_smoothing
        shift = logit_adjustment * _shares(counts, "loss.logit_adjustment").log() if logit_adjustment else None
        # buffers, so that they are where the logits are; not in checkpoints, which hold the counts
        self.register_buffer("_weights", _class_weights(class_weights, counts), persistent=False)
        self.register_buffer("_shift", shift, persistent=False)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of a batch: targets are labels (N,) or probabilities (N, classes)."""
        adjusted = logits if self._shift is None else logits + self._shift
        if self._weights is None:
            return functional.cross_entropy(adjusted, targets, label_smoothing=self._smoothing)
        # the mean over faces: torch's own divides by the batch's weights, but only where targets are labels
        return functional.cross_entropy(
            adjusted, targets, self._weights, reduction="none", label_smoothing=self._smoothing
        ).mean()


class Focal(nn.Module):
    """The mean focal loss of faces, -sum_c t_c * w_c * (1 - p_c)^gamma * log p_c with p = softmax(logits).

    That of a label is Lin et al. 2017, eq. 5, ``class_weights`` being its alpha (see `CrossEntropy`), and cross entropy
    at ``gamma`` 0. It is linear in the targets, as mixup's loss is (Zhang et al. 2017): of a mixed face it is the
    mixture of the two labels' losses.

    Raises:
        InputError: a value is out of range, or a class that is to be balanced has no training face.
    """

    _weights: Tensor | None

    def __init__(
        self,
        counts: Sequence[int] | None = None,
        gamma: float = 2.0,
        class_weights: Literal["none", "balanced"] = "none",
    ) -> None:
        super().__init__()
        if not 0 <= gamma <= 100:
            raise InputError(f"loss.gamma={gamma} is not an exponent of 0 to 100")
        self._gamma = gamma
        self.register_buffer("_weights", _class_weights(class_weights, counts), persistent=False)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of a batch: targets are labels (N,) or probabilities (N, classes)."""
        log_p = logits.log_softmax(1)
        # 1 - p without its rounding; where it is 0, a power below 1 would have an infinite slope
        left = (-log_p.expm1()).clamp(min=torch.finfo(log_p.dtype).tiny)
        losses = -(left**self._gamma) * log_p
        if self._weights is not None:
            losses = losses * self._weights
        if targets.ndim == 1:
            return losses.gather(1, targets[:, None]).mean()
        return (targets * losses).sum(1).mean()


def _class_weights(weights: str, counts: Sequence[int] | None) -> Tensor | None:
    """Return the loss weight of each class, 1 in the mean over faces."""
    if weights == "none":
        return None
    shares = _shares(counts, "loss.class_weights")
    return 1 / (len(shares) * shares)


def _shares(counts: Sequence[int] | None, key: str) -> Tensor:
    if counts is None:
        raise InputError(
            f"{key} needs the training faces of each class, which the data module does not tell: "
            "give it a method counts() -> list[int], or leave it out"
        )
    n = torch.tensor(counts, dtype=torch.float)
    if n.min() == 0:
        raise InputError(
            f"{key} needs training faces of each class, but class {int(n.argmin())} (counted from 0) has none: "
            "leave it out"
        )
    return n / n.sum()


#: What a function calls its arguments that is the loss itself.
_GIVEN = {"logits", "input", "inputs", "output", "outputs", "pred", "preds", "prediction", "predictions", "y_pred"}


def require_maker(config: dict[str, Any]) -> None:
    """Refuse a function of logits and targets, where one is wanted that gives the loss.

    Raises:
        InputError: its arguments look so.
    """
    try:
        parameters = inspect.signature(locate(config["_target_"], "loss")).parameters.values()
    except (TypeError, ValueError):
        # of one without a signature the check of targets says so
        return
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [p.name for p in parameters if p.default is p.empty and p.kind in kinds]
    first, second, *_ = *(name for name in needed if name not in config and name not in OFFERED), "", ""
    if first.lower() in _GIVEN and second:
        raise InputError(
            f"loss._target_={config['_target_']}: a function of {first} and {second}, where one is wanted that gives a "
            "torch.nn.Module, or such a class, whose forward() has these arguments"
        )


def build_loss(config: dict[str, Any], num_classes: int, counts: Sequence[int] | None) -> nn.Module:
    """Build the loss of a checked config; ``counts`` may be None where its target does not take them.

    Raises:
        InputError: it refuses its arguments, or is no module.
    """
    target, offered = config["_target_"], {"num_classes": num_classes, "counts": counts}
    taken = inspect.signature(locate(target)).parameters.get("counts")
    if counts is None and taken and taken.default is taken.empty:
        raise InputError(
            f"loss._target_={target} needs counts, the training faces of each class, which the data module does not "
            "tell: give it a method counts() -> list[int]"
        )
    loss = build(config, "loss", **{name: offered[name] for name in takes(target, OFFERED)})
    if not isinstance(loss, nn.Module):
        raise InputError(f"loss._target_={target}: gives {type(loss).__name__}, not a torch.nn.Module")
    return loss


def loss_of(loss: nn.Module, logits: Tensor, targets: Tensor) -> Tensor:
    """Return what a loss makes of a batch, at least in float32; nothing is read from the device.

    Raises:
        InputError: that is no scalar or does not depend on the logits, the loss takes labels alone, or it changes what
            it is given, of which the scores of training are made.
    """
    logits = logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits
    name = _name(loss)
    versions = logits._version, targets._version
    try:
        value = loss(logits, targets)
    except (TypeError, ValueError, IndexError, RuntimeError) as error:
        if not targets.is_floating_point() or isinstance(error, InputError | torch.OutOfMemoryError):
            raise
        said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InputError(
            f"{name} fails on probabilities (N, classes) as targets, which recipe.mix and recipe.votes=soft give: "
            f"set recipe.mix=0 and another recipe.votes, or choose another loss ({said})"
        ) from error
    if (logits._version, targets._version) != versions:
        raise InputError(
            f"{name} changes the logits or targets that it is given in place, and the scores of training are made of "
            "them: let it work on a clone()"
        )
    if not isinstance(value, Tensor) or value.ndim or not value.is_floating_point():
        shown = f"{value.dtype} {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise InputError(f"{name} gives {shown}, not a scalar: let it return the mean over faces")
    if logits.requires_grad and not value.requires_grad:
        raise InputError(
            f"{name} gives a value that has no gradient, so nothing is learnt: compute it from the logits by torch's "
            "functions, without detach() or argmax()"
        )
    return value


def require_targets(loss: nn.Module, num_classes: int, rows: int, labels: bool, probabilities: bool) -> None:
    """Try a loss on ``rows`` logits with the targets that it will get: ``labels`` (N,), ``probabilities`` (N, classes).

    A copy is tried, on the CPU, and torch's generator is left as it is.

    Raises:
        InputError: it does not take them, or what it gives is none of `loss_of`.
    """
    given = torch.arange(rows) % num_classes
    kinds = [given] if labels else []
    if probabilities:
        kinds.append(functional.one_hot(given, num_classes) * 0.8 + 0.2 / num_classes)
    with torch.random.fork_rng(devices=[]):
        for targets in kinds:
            logits = torch.linspace(-1, 1, rows * num_classes).view(rows, num_classes).requires_grad_()
            try:
                loss_of(copy.deepcopy(loss), logits * 1, targets)
            except Exception as error:
                if "device" in str(error):
                    # one that makes its tensors on the device of the training
                    return
                if isinstance(error, InputError):
                    raise
                said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
                raise InputError(f"{_name(loss)} fails on labels (N,) as targets: {said}") from error


def _name(loss: nn.Module) -> str:
    return f"loss: {type(loss).__module__}.{type(loss).__qualname__}"
