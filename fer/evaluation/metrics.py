"""Scores of a classifier and their intervals, as pure functions of arrays.

Probabilities are (N, C), rows summing to 1; labels are integers (N,) in 0..C-1; confusion counts are (C, C), rows true,
columns predicted. A ratio whose denominator is zero (recall of a class with no rows, precision of one never predicted)
is 0, scikit-learn's ``zero_division=0``.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from fer.errors import InputError


def metrics_from_confusion(counts: np.ndarray) -> dict[str, Any]:
    """Return accuracy, balanced accuracy, macro averages and per-class lists from confusion counts (C, C).

    Balanced accuracy is the mean recall over the classes that have rows. The macro averages are over the classes that
    have rows or are predicted; a class that does neither is left out of every mean and stands in the lists with zeros.
    Keys: accuracy, balanced_accuracy, macro_precision, macro_recall, macro_f1 (floats in 0..1); precision, recall, f1
    (C floats), support (C ints).

    Raises:
        ValueError: the matrix holds no rows at all.
    """
    counts = np.asarray(counts)
    correct, support, predicted = np.diagonal(counts), counts.sum(axis=1), counts.sum(axis=0)
    total = int(support.sum())
    if total == 0:
        raise ValueError("the confusion matrix holds no rows")
    precision, recall = ratio(correct, predicted), ratio(correct, support)
    f1 = ratio(2 * correct, support + predicted)
    occurs = support + predicted > 0
    return {
        "accuracy": int(correct.sum()) / total,
        "balanced_accuracy": float(recall[support > 0].mean()),
        "macro_precision": float(precision[occurs].mean()),
        "macro_recall": float(recall[occurs].mean()),
        "macro_f1": float(f1[occurs].mean()),
        "precision": precision.tolist(),
        "recall": recall.tolist(),
        "f1": f1.tolist(),
        "support": support.tolist(),
    }


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros(len(numerator)), where=denominator > 0)


def wilson_interval(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return the score interval (low, high) of a proportion; (0, 1) when n is 0.

    Wilson 1927, "Probable inference, the law of succession, and statistical inference", JASA 22:209-212:
    (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n).

    Examples:
        >>> [round(bound, 4) for bound in wilson_interval(8, 10)]
        [0.4902, 0.9433]

    Raises:
        ValueError: not 0 <= successes <= n.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes out of {n}")
    if n == 0:
        return 0.0, 1.0
    z, p = NormalDist().inv_cdf((1 + level) / 2), successes / n
    centre, scale = p + z * z / (2 * n), 1 + z * z / n
    half = z * math.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def expected_calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> float:
    """Return the mean gap between confidence and accuracy, weighted by the rows in each bin of confidence.

    Equal-width bins ((m-1)/bins, m/bins]: Guo et al. 2017, "On calibration of modern neural networks", equation 3.
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    gap = (probabilities.argmax(axis=1) == labels) - confidence
    which = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    return float(np.abs(np.bincount(which, weights=gap, minlength=bins)).sum() / len(labels))


def risk_coverage(probabilities: np.ndarray, labels: np.ndarray) -> list[dict[str, float]]:
    """Return what is left, and how often it is right, where faces below a confidence are given no name.

    One entry for each ``min_confidence`` of 0, 0.05 .. 0.95, as predict.py takes it: ``coverage`` (share of the rows
    whose highest probability is at least that) and ``accuracy`` of these, both in 0..1; it ends where none is left.
    El-Yaniv & Wiener 2010, "On the foundations of noise-free selective classification", JMLR 11.
    """
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    points = []
    for step in range(20):
        kept = confidence >= step / 20
        if not kept.any():
            break
        points.append(
            {"min_confidence": step / 20, "coverage": float(kept.mean()), "accuracy": float(right[kept].mean())}
        )
    return points


def top_k_accuracy(probabilities: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Return the share of rows whose label is among the k most probable classes.

    Of equal probabilities the class with the lower index comes first, so that k = 1 is the accuracy of ``argmax``.
    """
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return float((best == labels[:, None]).any(axis=1).mean())


def confusion_counts(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the int64 confusion counts (C, C); a class that never occurs keeps its row and column."""
    classes = probabilities.shape[1]
    cell = np.asarray(labels, np.int64) * classes + probabilities.argmax(axis=1)
    return np.bincount(cell, minlength=classes * classes).reshape(classes, classes)


def summarize(probabilities: np.ndarray, labels: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
    """Return every metric of a scored split as plain JSON data, fractions in 0..1.

    Keys: n, accuracy, accuracy_95 (Wilson, [low, high]), balanced_accuracy, macro_precision, macro_recall, macro_f1,
    top2_accuracy, ece (15 bins), nll (nats, probabilities clipped at 2.2e-16), risk_coverage (see there), per_class (a
    list of name, precision, recall, f1, support), confusion (counts as nested lists).

    Raises:
        InputError: a row is not a distribution, as from a network whose weights are NaN.
        ValueError: no rows, or shapes, labels and names that do not belong together.
    """
    probabilities, labels = np.asarray(probabilities, np.float64), np.asarray(labels)
    n, classes = len(labels), len(class_names)
    if n == 0 or probabilities.shape != (n, classes) or labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"probabilities {probabilities.shape}, {n} labels and {classes} names do not fit together")
    # 1e-2 lets half-precision softmax through and keeps logits out.
    bad = ~((probabilities >= 0).all(axis=1) & (np.abs(probabilities.sum(axis=1) - 1) < 1e-2))
    if bad.any():
        raise InputError(
            f"the model's output is not a probability distribution on {bad.sum():,} of {n:,} images: "
            "choose a checkpoint from before its weights became NaN or infinite"
        )
    counts = confusion_counts(probabilities, labels)
    metrics = metrics_from_confusion(counts)
    columns = zip(class_names, *(metrics.pop(key) for key in ("precision", "recall", "f1", "support")), strict=True)
    label_probability = np.take_along_axis(probabilities, labels[:, None], axis=1)
    return {
        "n": n,
        "accuracy_95": list(wilson_interval(int(np.trace(counts)), n)),
        **metrics,
        "top2_accuracy": top_k_accuracy(probabilities, labels, 2),
        "ece": expected_calibration_error(probabilities, labels),
        "nll": float(-np.log(label_probability.clip(np.finfo(np.float64).eps, 1)).mean()),
        "risk_coverage": risk_coverage(probabilities, labels),
        "per_class": [dict(zip(("name", "precision", "recall", "f1", "support"), row, strict=True)) for row in columns],
        "confusion": counts.tolist(),
    }


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the two-sided exact p-value that two classifiers err equally often, from their discordant counts.

    The counts are the rows that only the first, and only the second, gets right. Exact at every size (no chi-square
    approximation): min(1, 2 P(X <= min)) with X binomial(sum, 1/2), summed from logarithms of factorials.
    McNemar 1947, "Note on the sampling error of the difference between correlated proportions", Psychometrika 12.

    Examples:
        >>> mcnemar(1, 9)  # 2 * (1 + 10) / 2**10
        0.021484375
    """
    n, fewer = only_first + only_second, min(only_first, only_second)
    if n < 1000:
        return min(1.0, 2 * sum(math.comb(n, k) for k in range(fewer + 1)) / 2**n)
    logs = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(fewer + 1)]
    return min(1.0, 2 * math.fsum(math.exp(log - n * math.log(2)) for log in logs))
