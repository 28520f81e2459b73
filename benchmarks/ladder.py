"""The ladder of docs/results.md: recipes for FER2013, trained and scored one after another, and the table of them.

    python benchmarks/ladder.py                       the rungs, and which are done
    python benchmarks/ladder.py small seed_vgg19      train and score these
    python benchmarks/ladder.py all --minutes 9       all that are not done, for so long; the same command goes on
    python benchmarks/ladder.py --table               write the table of docs/results.md from docs/results/*.json
    python benchmarks/ladder.py all --rehearse        the same steps with a tiny network, for a trial on a CPU; its runs
                                                      and numbers lie in runs/rehearsal/ and mean nothing

Needs data/fer2013-48-grey.h5 (`python prepare.py data=fer2013 data.raw=FILE`). Each rung is trained on Training with
each of its seeds, and the last epoch is scored on PublicTest: nothing is chosen on it. A run that is stopped goes on
where it was. Runs lie in runs/ladder/RUNG/SEED/, the numbers in docs/results/RUNG.json.
"""

import argparse
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
RUNS, RESULTS, PAGE = ROOT / "runs/ladder", ROOT / "docs/results", ROOT / "docs/results.md"
#: What a rung may have in its table, beside the options of its own.
VGG19 = ("experiment=seed_fer2013_vgg19",)
#: What makes a training short enough to try the steps.
TINY = (
    "model=vgg_small",
    "trainer=cpu",
    "trainer.max_epochs=3",
    "trainer.limit_train_batches=8",
    "batch_size=32",
)
COSINE = (
    *VGG19,
    "schedule=cosine",
    "schedule.warmup=5",
    "optimizer.lr=0.05",
    "optimizer.nesterov=true",
    "batch_size=128",
)
STRONG = ("experiment=strong_fer2013_resnet18",)


@dataclass(frozen=True)
class Rung:
    """A row of the table: ``options`` of train.py, or with ``of`` an ensemble of other rungs' seeds.

    ``teachers`` names the rung whose seeds are distilled.
    """

    title: str
    options: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0,)
    of: tuple[tuple[str, int], ...] = ()
    teachers: str = ""


RUNGS = {
    "seed_vgg19": Rung("the original recipe: VGG19", VGG19),
    "strong_resnet18": Rung("best single network: ResNet18, strong augmentation, mixing, EMA", STRONG, (0, 1, 2)),
    "strong_vgg19": Rung("the best recipe with VGG19", (*STRONG, "model=vgg19"), (0, 1)),
    "ensemble": Rung("five of these averaged", of=tuple(("strong_resnet18", seed) for seed in range(3))
                     + (("strong_vgg19", 0), ("strong_vgg19", 1))),
    "distilled": Rung("the ensemble distilled into one ResNet18", STRONG, teachers="ensemble"),
    "small": Rung("small network for CPUs: VGG9", ("experiment=small_fer2013",), (0, 1, 2)),
    "base": Rung("wide network for CPUs: VGG9 with 1.5 times the channels, augment=wild",
                 ("experiment=base_fer2013",), (0, 1)),
    "small_ensemble": Rung("three of these averaged", of=tuple(("small", seed) for seed in range(3))),
    "small_distilled": Rung("the ensemble distilled into VGG9", ("experiment=small_fer2013",), teachers="ensemble"),
    "cpu_vgg_small": Rung("the smallest: four convolutions, the original augmentation", ("experiment=cpu_fer2013",)),
    "cosine": Rung("original + cosine, Nesterov, batch 128", COSINE),
    "cosine_augment": Rung("... + strong augmentation", (*COSINE, "augment=strong")),
    "cosine_augment_smooth": Rung("... + label smoothing, EMA",
                                  (*COSINE, "augment=strong", "recipe=ema", "loss=smooth")),
    "cosine_augment_mixed": Rung("... + mixup and cutmix", (*COSINE, "augment=strong", "recipe=mixed", "loss=smooth")),
    "sam": Rung("best single network + SAM", (*STRONG, "recipe.sam=0.05")),
    "balanced": Rung("best single network + balanced sampler", (*STRONG, "recipe.sampler=balanced")),
    "logit_adjustment": Rung("best single network + logit adjustment", (*STRONG, "loss.logit_adjustment=1.0")),
}  # fmt: skip


#: What a rehearsal adds to each rung.
EXTRA: list[str] = []


class OutOfTime(Exception):
    """The minutes are over."""


def command(rung: Rung, seed: int) -> list[str]:
    """Return the options of train.py."""
    options = [*rung.options, *EXTRA, f"seed={seed}"]
    if rung.teachers:
        options.append(f"recipe.teachers=[{','.join(str(path) for path in members(RUNGS[rung.teachers]))}]")
    return options


def members(ensemble: Rung) -> list[Path]:
    return [finished(name, seed) for name, seed in ensemble.of]


def finished(name: str, seed: int) -> Path:
    """Return the last epoch's checkpoint of a finished run, relative to the repository."""
    folder = RUNS / name / str(seed)
    if not (folder / "finished").is_file():
        sys.exit(f"{name} needs to be trained before: python benchmarks/ladder.py {name}")
    return (newest(folder) / "checkpoints/last.ckpt").relative_to(ROOT)


def newest(folder: Path) -> Path:
    """Return the folder of the last of a run's parts."""
    return max((part for part in folder.iterdir() if part.name.isdigit()), key=lambda part: int(part.name))


def train(name: str, seed: int, deadline: float) -> float:
    """Train what is missing of a run; returns the seconds of all its parts."""
    folder = RUNS / name / str(seed)
    folder.mkdir(parents=True, exist_ok=True)
    book = folder / "seconds.json"
    seconds = json.loads(book.read_text()) if book.is_file() else []
    if not (folder / "finished").is_file():
        options = command(RUNGS[name], seed)
        parts = [part for part in folder.iterdir() if part.name.isdigit()]
        if parts:
            kept = newest(folder) / "checkpoints"
            found = [file for file in (kept / "interrupted.ckpt", kept / "last.ckpt") if file.is_file()]
            if found:
                options.append(f"resume={max(found, key=lambda file: file.stat().st_mtime)}")
        part = folder / str(len(parts))
        start = time.monotonic()
        process = subprocess.Popen([sys.executable, "train.py", *options, f"hydra.run.dir={part}"], cwd=ROOT)
        try:
            code = process.wait(max(1.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            process.wait()
            code = None
        seconds.append(time.monotonic() - start)
        book.write_text(json.dumps(seconds))
        if code is None:
            raise OutOfTime
        if code:
            raise RuntimeError(f"train.py ended with exit code {code}")
        (folder / "finished").touch()
    return sum(seconds)


def score(ckpt: str, out: Path) -> dict[str, Any]:
    """Score checkpoints on PublicTest, by one crop and by ten; returns the numbers that the table has."""
    options = [f"ckpt={ckpt}", "split=val", f"out={out}"]
    if subprocess.run([sys.executable, "evaluate.py", *options], cwd=ROOT).returncode:
        raise RuntimeError("evaluate.py failed")
    report = json.loads((out / "report.json").read_text())
    keys = ("accuracy", "accuracy_95", "balanced_accuracy", "macro_f1", "ece", "nll", "temperature_scaled", "per_class")
    return {crop: {key: report[crop][key] for key in keys} for crop in ("plain", "ten_crop")} | {
        "n": report["plain"]["n"]
    }


def device() -> str:
    """Return what the rung was trained on, in words."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    found = re.search(
        r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text() if os.path.exists("/proc/cpuinfo") else ""
    )
    return f"{found[1] if found else platform.processor()}, {(n := torch.get_num_threads())} thread{'s'[: n > 1]}"


def climb(name: str, deadline: float) -> None:
    """Train and score a rung, and write its numbers, or why there are none."""
    rung = RUNGS[name]
    result: dict[str, Any] = {"title": rung.title, "device": device(), "torch": torch.__version__, "runs": {}}
    try:
        if rung.of:
            paths = [str(path) for path in members(rung)]
            result["command"] = f"python evaluate.py ckpt=[{','.join(paths)}]"
            result["runs"]["ensemble"] = score(f"[{','.join(paths)}]", RUNS / name)
        else:
            result["command"] = f"python train.py {' '.join(command(rung, rung.seeds[0]))}"
        for seed in rung.seeds if not rung.of else ():
            seconds = train(name, seed, deadline)
            scores = score(str(finished(name, seed)), RUNS / name / str(seed) / "evaluate")
            result["runs"][str(seed)] = {"seconds": round(seconds), **scores}
    except RuntimeError as error:
        result["failed"] = str(error)
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")


def table() -> str:
    """Return the table of all results there are, in the order of the rungs, as Markdown; per cent, mean and spread."""
    lines = [
        "| rung | seeds | plain | ten-crop | balanced | calibration | after temperature | seconds | device | command |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name in RUNGS:
        file = RESULTS / f"{name}.json"
        if not file.is_file():
            continue
        result = json.loads(file.read_text())
        runs = list(result["runs"].values())
        row = [result["title"], str(len(RUNGS[name].of) or len(runs))]
        if "failed" in result:
            row += [f"failed: {result['failed']}", *[""] * 5]
        else:
            ten = [run["ten_crop"] for run in runs]
            row += [percent([run["plain"]["accuracy"] for run in runs]), percent([each["accuracy"] for each in ten])]
            row += [percent([each["balanced_accuracy"] for each in ten]), percent([each["ece"] for each in ten])]
            row += [percent([each["temperature_scaled"]["ece"] for each in ten])]
            row += [f"{np.mean([run['seconds'] for run in runs]):,.0f}" if "seconds" in runs[0] else ""]
        lines.append("| " + " | ".join([*row, result["device"], f"`{result['command']}`"]) + " |")
    return "\n".join(lines)


def percent(values: list[float]) -> str:
    """Return the mean, and with several values their sample standard deviation.

    >>> percent([0.7, 0.71]), percent([0.7])
    ('70.50 ± 0.71', '70.00')
    """
    mean = f"{100 * np.mean(values):.2f}"
    return mean if len(values) == 1 else f"{mean} ± {100 * np.std(values, ddof=1):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rungs", nargs="*", choices=[[], *RUNGS, "all"], metavar="RUNG")
    parser.add_argument("--minutes", type=float, default=1e6, help="stop the training that then runs, and end")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--rehearse", action="store_true", help="a tiny network in place of each, in runs/rehearsal/")
    arguments = parser.parse_args()
    if arguments.rehearse and arguments.table:
        parser.error("--rehearse has no numbers for the table")
    if arguments.rehearse:
        global RUNS, RESULTS
        RUNS = RESULTS = ROOT / "runs/rehearsal"
        EXTRA.extend(TINY)
    deadline = time.monotonic() + 60 * arguments.minutes
    try:
        for name in RUNGS if "all" in arguments.rungs else arguments.rungs:
            if not (RESULTS / f"{name}.json").is_file() or name in arguments.rungs:
                climb(name, deadline)
    except OutOfTime:
        print("out of time: the same command goes on")
    if arguments.table:
        before, _, after = re.split(r"(<!-- ladder -->.*<!-- end -->)", PAGE.read_text(), flags=re.DOTALL)
        PAGE.write_text(f"{before}<!-- ladder -->\n\n{table()}\n\n<!-- end -->{after}")
    if not arguments.rungs and not arguments.table:
        for name, rung in RUNGS.items():
            print(f"{name:22} {'done' if (RESULTS / f'{name}.json').is_file() else '    '}  {rung.title}")


if __name__ == "__main__":
    main()
