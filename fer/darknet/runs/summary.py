"""What a run prints at its start and at its end."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fer.darknet.design.fit import count_epochs
from fer.darknet.formats.cfg import layers
from fer.darknet.formats.photo_folder import DarknetData
from fer.darknet.formats.run_folder import judged_by
from fer.darknet.formats.weights import Net, newest_whole, weights_bytes
from fer.darknet.runs.curves import curves
from fer.darknet.runs.monitor import Monitor
from fer.darknet.runs.scorer import best_weights, read_best
from fer.darknet.runs.setup import METRIC
from fer.runs.record import note
from fer.system.command import command


def print_start(
    by: str, net: Net, data: DarknetData, max_batches: int, out: Path, done: int, options: Mapping[str, Any]
) -> None:
    """Print what is trained on what, and ``by`` what; and where a run goes on that has ``done`` some iterations."""
    batch, judge = int(net.sections[0].options["batch"]), judged_by(data)
    epochs = count_epochs(max_batches, batch, data.photos["train"])
    print(
        f"{net.cfg.stem}: {len(layers(net.sections))} layers, {weights_bytes(net.sections) / 1e6:.1f} MB of weights; "
        f"{data.folder}: {data.photos['train']:,} train, {data.photos[judge]:,} {judge} photos"
        + (" (drawn sample data)" if data.drawn else "")
        + f"; {max_batches:,} iterations of {batch} = {epochs:.1f} epochs; {by}; "
        f"run folder {out}"
    )
    if done:
        print(
            f"goes on after {done:,} of {max_batches:,} iterations, in epoch {int(epochs * done / max_batches) + 1:,}"
        )
    if judge == "test" and (options["map"] if net.task == "detector" else options["topk"]):
        print(
            "note: there is no val split of its own: test photos choose the best checkpoint, "
            "as in the original experiment"
        )


def note_result(out: Path, net: Net, monitor: Monitor) -> None:
    """Write the best score so far, as it stands beside the weights, into run.json; nothing where none was taken."""
    if best := read_best(net.weights):
        note(out, result={"scores": {best["metric"]: best["score"]}, "iteration": best["iteration"]})
    elif monitor.scores:
        iteration = max(monitor.scores, key=lambda at: monitor.scores[at])
        note(out, result={"scores": {METRIC[net.task]: monitor.scores[iteration]}, "iteration": iteration})


def print_results(out: Path, net: Net, monitor: Monitor, data: DarknetData, more: str = "") -> float:
    """Draw the curves, say where everything lies, and return the best score; ``more`` goes to the printed command."""
    metric, best = METRIC[net.task], read_best(net.weights)
    title = f"{net.cfg.stem} on {data.data}" + (" (drawn sample data)" if data.drawn else "")
    curves(monitor.history, monitor.scores, metric, title).savefig(out / "curves.png", dpi=100)
    best_file = best_weights(net.weights)
    chosen = best_file if best_file.is_file() else newest_whole(net.weights.parent, net.cfg.stem, net.sections)
    score = best["score"] if best else max(monitor.scores.values(), default=0.0)
    if best or monitor.scores:
        print(f"best {metric} {score:.4f}: {chosen}")
    print(f"curves: {out / 'curves.png'}")
    print(f"TensorBoard: tensorboard --logdir {out}")
    print(f"score it: {command('evaluate')} ckpt={chosen}{more}")
    return score
