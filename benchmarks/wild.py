"""What each change of `augment=wild` gives on faces from elsewhere, by training the shipped network on.

    python benchmarks/wild.py                  train and score the rows that are not done, write the table
    python benchmarks/wild.py gamma jpeg       only these

Needs data/fer2013-48-grey.h5, data/jaffe-48-grey.h5 and data/ck48-48-grey.h5 (prepare.py). Each row starts from
`fer2013_vgg9`, is trained on FER2013's Training alone for EPOCHS epochs of one fixed recipe, on one CPU thread, and its
last epoch is scored by the centre crop on PublicTest and on every row of JAFFE and CK+48, neither of which is trained
on. What is done lies in runs/wild/; numbers go to docs/results/wild.json and the table into docs/results.md.
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
from ladder import device

ROOT = Path(__file__).resolve().parents[1]
RUNS, NUMBERS, PAGE = ROOT / "runs/wild", ROOT / "docs/results/wild.json", ROOT / "docs/results.md"
EPOCHS = 4
RECIPE = [
    "experiment=small_fer2013", "init=fer2013_vgg9", "optimizer.lr=0.01", "schedule.warmup=0", "seed=0",
    f"trainer.max_epochs={EPOCHS}",
]  # fmt: skip
#: `wild` with the places of `strong` and no other change: what each row adds to.
PLACES = [
    "augment=wild", "augment.rotate=12", "augment.zoom=[0.88,1.12]",
    *(f"augment.{change}=0" for change in (
        "gamma", "contrast", "balance", "equalize", "blur", "low_resolution", "noise", "jpeg")),
]  # fmt: skip
ROWS = {
    "not trained on": None,
    "places": PLACES,
    "strong": ["augment=strong"],
    "rotate": [*PLACES, "augment.rotate=30"],
    "zoom": [*PLACES, "augment.zoom=[0.7,1.4]"],
    "gamma": [*PLACES, "augment.gamma=0.5"],
    "contrast": [*PLACES, "augment.contrast=0.5"],
    "balance": [*PLACES, "augment.balance=0.5"],
    "equalize": [*PLACES, "augment.equalize=0.5"],
    "blur": [*PLACES, "augment.blur=0.3"],
    "low_resolution": [*PLACES, "augment.low_resolution=0.3"],
    "noise": [*PLACES, "augment.noise=0.3"],
    "jpeg": [*PLACES, "augment.jpeg=0.3"],
    "wild": ["augment=wild"],
    "wild, logit adjustment 0.5": ["augment=wild", "loss.logit_adjustment=0.5"],
    "wild, logit adjustment 1": ["augment=wild", "loss.logit_adjustment=1.0"],
    "wild, balanced sampler": ["augment=wild", "recipe.sampler=balanced"],
}
DATA = {
    "PublicTest": ["data=fer2013", "split=val"], "JAFFE": ["data=jaffe", "split=all"],
    "CK+48": ["data=ck48", "split=all"],
}  # fmt: skip
KEPT = ("n", "accuracy", "accuracy_95", "balanced_accuracy", "ece", "per_class")


def run(script: str, *options: str) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, script, *options], cwd=ROOT, env=environment, check=True)


def folder_of(name: str) -> Path:
    return RUNS / re.sub(r"\W+", "_", name)


def row(name: str) -> dict:
    """Train and score a row where that is not done; return its scores on each data set."""
    folder = folder_of(name)
    ckpt = str(folder / "checkpoints/last.ckpt") if ROWS[name] else "fer2013_vgg9"
    if ROWS[name] and not (folder / "seconds").is_file():
        start = time.monotonic()
        run("train.py", *RECIPE, *ROWS[name], f"hydra.run.dir={folder}")
        (folder / "seconds").write_text(f"{time.monotonic() - start:.0f}")
    scores = {"seconds": int((folder / "seconds").read_text()) if ROWS[name] else 0}
    for data, options in DATA.items():
        out = folder / f"evaluate_{options[0][5:]}"
        if not (out / "report.json").is_file():
            run("evaluate.py", f"ckpt={ckpt}", *options, "classes=common", "ten_crop=false", f"out={out}")
        report = json.loads((out / "report.json").read_text())["plain"]
        scores[data] = {key: report[key] for key in KEPT}
    return scores


def table(rows: dict) -> str:
    """Return the scores as Markdown: per cent, and for JAFFE the right ones of each class."""
    lines = [
        "| trained on with | PublicTest | balanced | JAFFE | Angry | Disgust | Fear | CK+48 | seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, scores in rows.items():
        public, jaffe, ck48 = (scores[data] for data in DATA)
        recall = {each["name"]: each["recall"] for each in jaffe["per_class"]}
        cells = [name, percent(public["accuracy"]), percent(public["balanced_accuracy"]), percent(jaffe["accuracy"])]
        cells += [percent(recall[key]) for key in ("Angry", "Disgust", "Fear")]
        lines.append("| " + " | ".join([*cells, percent(ck48["accuracy"]), str(scores["seconds"] or "")]) + " |")
    return "\n".join(lines)


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", choices=[[], *ROWS], metavar="ROW")
    arguments = parser.parse_args()
    # as the trainings have it
    torch.set_num_threads(1)
    for name in arguments.rows or ROWS:
        row(name)
    done = {name: row(name) for name in ROWS if not ROWS[name] or (folder_of(name) / "seconds").is_file()}
    NUMBERS.write_text(json.dumps({"device": device(), "recipe": RECIPE, "rows": done}, indent=1) + "\n")
    before, _, after = re.split(r"(<!-- wild -->.*<!-- end of wild -->)", PAGE.read_text(), flags=re.DOTALL)
    PAGE.write_text(f"{before}<!-- wild -->\n\n{table(done)}\n\n<!-- end of wild -->{after}")


if __name__ == "__main__":
    main()
