"""The curves of a run as a picture."""

import math

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def curves(history: list[dict[str, float]], scores: dict[int, float], metric: str, title: str) -> Figure:
    """Return loss, learning rate and validation score by iteration in one picture."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    loss, rate, score = figure.subplots(1, 3)
    at = [row["iteration"] for row in history]
    loss.plot(at, [row["train/loss"] for row in history], alpha=0.4, label="train/loss")
    loss.plot(at, [row["train/loss_avg"] for row in history], label="train/loss_avg")
    finite = [row["train/loss_avg"] for row in history if math.isfinite(row["train/loss_avg"])]
    if finite:
        # the first losses of a detector are hundreds of times the later ones
        loss.set_ylim(0, 1.2 * sorted(finite)[int(0.95 * (len(finite) - 1))])
    loss.set(ylabel="loss")
    loss.legend()
    rate.plot(at, [row["optim/lr"] for row in history])
    rate.set(ylabel="learning rate")
    score.plot(list(scores), list(scores.values()), marker=".")
    score.set(ylabel=metric)
    if scores:
        best = max(scores, key=lambda iteration: scores[iteration])
        score.set_title(f"best {metric} {scores[best]:.4f} at iteration {best}", fontsize=10)
    for axes in (loss, rate, score):
        axes.set(xlabel="iteration")
        axes.grid(alpha=0.3)
    figure.suptitle(title).set_parse_math(False)
    return figure
