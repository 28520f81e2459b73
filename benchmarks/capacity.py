"""Which network is worth a long training: the networks of `candidates.py` by speed and by accuracy after few epochs.

    python benchmarks/capacity.py                 train those that are not trained yet, time all, write the table
    python benchmarks/capacity.py vgg9 resnet9    only these

Needs data/fer2013-48-grey.h5. Each is trained alike, on Training alone, on one CPU thread: the recipe of
`experiment=small_fer2013` for EPOCHS epochs without averaged weights (four epochs are too few for them), seed 0; the
last epoch is scored on PublicTest by its centre crop. Rates are of the bare network on random faces of 44 x 44, in
turn: inference 32 at a time in float32, training (forward and backward) 128 at a time in bfloat16, channels last.
What is done lies in runs/capacity/; numbers go to docs/results/capacity.json and the table into docs/results.md.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import torch
from candidates import TABLES, network
from ladder import device
from torch.nn import functional

ROOT = Path(__file__).resolve().parents[1]
RUNS, NUMBERS, PAGE = ROOT / "runs/capacity", ROOT / "docs/results/capacity.json", ROOT / "docs/results.md"
EPOCHS, TURNS = 4, 3


def options(name: str) -> list[str]:
    """Return the options of train.py."""
    return [
        "experiment=small_fer2013", "model=custom", "model._target_=candidates.network", f"+model.name={name}",
        "recipe=plain", "schedule.warmup=1", f"trainer.max_epochs={EPOCHS}", "seed=0",
    ]  # fmt: skip


def train(name: str) -> dict[str, float]:
    """Train a candidate where that is not done; return its accuracy on PublicTest and its seconds."""
    folder = RUNS / name
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "benchmarks")))}
    environment["OMP_NUM_THREADS"] = "1"
    if not (folder / "seconds").is_file():
        start = time.monotonic()
        command = [sys.executable, "train.py", *options(name), f"hydra.run.dir={folder}"]
        subprocess.run(command, cwd=ROOT, env=environment, check=True)
        (folder / "seconds").write_text(f"{time.monotonic() - start:.0f}")
    report = folder / "evaluate/report.json"
    if not report.is_file():
        command = [sys.executable, "evaluate.py", f"ckpt={folder / 'checkpoints/last.ckpt'}", "split=val"]
        command += ["ten_crop=false", "trust=[candidates]", f"out={folder / 'evaluate'}"]
        subprocess.run(command, cwd=ROOT, env=environment, check=True)
    scores = json.loads(report.read_text())["plain"]
    return {
        "accuracy": scores["accuracy"], "accuracy_95": scores["accuracy_95"],
        "seconds": int((folder / "seconds").read_text()),
    }  # fmt: skip


def rates(names: list[str], threads: int) -> dict[str, dict[str, float]]:
    """Return the best faces a second of each network, in turn, of inference and of training."""
    torch.set_num_threads(threads)
    networks = {name: network(7, name) for name in names}
    best = {name: {"inference": 0.0, "training": 0.0} for name in names}
    for _ in range(TURNS):
        for name, net in networks.items():
            for kind, rate in (("inference", _inference(net)), ("training", _training(net))):
                best[name][kind] = max(best[name][kind], rate)
    return best


def _inference(net: torch.nn.Module, faces: int = 32, batches: int = 6) -> float:
    net.eval().to(memory_format=torch.contiguous_format)
    images = torch.rand(faces, 1, 44, 44)
    with torch.inference_mode():
        net(images)
        start = time.perf_counter()
        for _ in range(batches):
            net(images)
    return faces * batches / (time.perf_counter() - start)


def _training(net: torch.nn.Module, faces: int = 128, batches: int = 3) -> float:
    net.train().to(memory_format=torch.channels_last)
    images, labels = torch.rand(faces, 1, 44, 44), torch.randint(0, 7, (faces,))
    for batch in range(batches + 1):
        if batch == 1:
            start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            loss = functional.cross_entropy(net(images), labels)
        net.zero_grad()
        loss.backward()
    return faces * batches / (time.perf_counter() - start)


def table(numbers: dict) -> str:
    """Return the table of all candidates, the best first, as Markdown."""
    lines = [
        "| network | parameters | MB, float16 | inference, 1 thread | 2 threads | training, 1 thread | 2 threads "
        "| PublicTest after 4 epochs | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    reference = numbers["networks"]["vgg9"]["rates"]
    for name, row in sorted(numbers["networks"].items(), key=lambda item: -item[1].get("accuracy", 0)):
        relative = [
            f"{row['rates'][threads][kind] / reference[threads][kind]:.2f}"
            for kind in ("inference", "training") for threads in ("1", "2")
        ]  # fmt: skip
        low, high = (f"{100 * end:.1f}" for end in row.get("accuracy_95", (0, 0)))
        score = f"{100 * row['accuracy']:.2f} [{low}, {high}]" if "accuracy" in row else "not trained"
        size = f"{row['parameters'] * 2 / 1e6:.1f}"
        cells = [f"`{name}`", f"{row['parameters']:,}", size, *relative, score, str(row.get("seconds", ""))]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[[], *TABLES], metavar="NAME")
    parser.add_argument("--no-training", action="store_true", help="time them and write the table of what is trained")
    arguments = parser.parse_args()
    if not arguments.no_training:
        for name in arguments.names or TABLES:
            train(name)
    networks = {}
    for name in TABLES:
        values = sum(parameter.numel() for parameter in network(7, name).parameters())
        networks[name] = {"table": TABLES[name], "parameters": values}
        if (RUNS / name / "seconds").is_file():
            networks[name] |= train(name)
    measured = {threads: rates(list(TABLES), threads) for threads in (1, 2)}
    for name, row in networks.items():
        row["rates"] = {str(threads): measured[threads][name] for threads in measured}
    torch.set_num_threads(1)
    numbers = {"device": device(), "torch": torch.__version__, "epochs": EPOCHS, "networks": networks}
    NUMBERS.write_text(json.dumps(numbers, indent=1) + "\n")
    before, _, after = re.split(r"(<!-- capacity -->.*<!-- end of capacity -->)", PAGE.read_text(), flags=re.DOTALL)
    PAGE.write_text(f"{before}<!-- capacity -->\n\n{table(numbers)}\n\n<!-- end of capacity -->{after}")


if __name__ == "__main__":
    main()
