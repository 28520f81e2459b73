"""Temperature scaling: one number that makes a classifier's probabilities as sure as it is right, after training.

Guo et al. 2017, "On calibration of modern neural networks", section 4.2: logits are divided by the temperature that
minimises the negative log-likelihood of labelled rows, so no prediction changes. The logarithm of a probability is a
logit up to a constant of its row, so that probabilities (N, C), also averaged ones, are all that is needed.
"""

import numpy as np

#: The temperature is sought between 1 / LIMIT and LIMIT; where every row is right, no smallest one is the best.
LIMIT = 20.0


def fit_temperature(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """Return the temperature that minimises the negative log-likelihood of integer labels (N,), N > 0.

    The likelihood is concave in the inverse temperature, whose best value is found by bisection of its slope.
    """
    logits, low, high = _logits(probabilities), 1 / LIMIT, LIMIT
    label_logits = np.take_along_axis(logits, np.asarray(labels)[:, None], axis=1).mean()
    for _ in range(60):
        inverse = (low * high) ** 0.5
        overconfident = (_softmax(inverse * logits) * logits).sum(axis=1).mean() > label_logits
        low, high = (low, inverse) if overconfident else (inverse, high)
    return float((low * high) ** -0.5)


def apply_temperature(probabilities: np.ndarray, temperature: float) -> np.ndarray:
    """Return the probabilities float64 (N, C) of the logits divided by a temperature."""
    return _softmax(_logits(probabilities) / temperature)


def cross_fit(probabilities: np.ndarray, labels: np.ndarray, seed: int = 0) -> tuple[np.ndarray, tuple[float, float]]:
    """Return the scaled probabilities (N, C) of both random halves of N > 1 rows, and the two temperatures used.

    Each half is scaled with the temperature that was fitted on the other, so that no row is judged by its own label.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    one, other = np.array_split(order, 2)
    fitted_on_one, fitted_on_other = (fit_temperature(probabilities[half], labels[half]) for half in (one, other))
    scaled = np.empty(probabilities.shape)
    scaled[one] = apply_temperature(probabilities[one], fitted_on_other)
    scaled[other] = apply_temperature(probabilities[other], fitted_on_one)
    return scaled, (fitted_on_other, fitted_on_one)


def _logits(probabilities: np.ndarray) -> np.ndarray:
    # a float32 softmax may give 0, whose logarithm is no number; the smallest float32 stands for it
    smallest = np.finfo(np.float32).smallest_subnormal
    return np.log(np.asarray(probabilities, np.float64).clip(smallest))


def _softmax(logits: np.ndarray) -> np.ndarray:
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)
