"""The run of `evaluate folds=`: every row scored by the network that was trained on the other folds."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fer.data.folds import Folds, draw_folds
from fer.data.loading.dataset import FoldDataset
from fer.data.storage.hdf5 import read_column, read_groups, read_info
from fer.errors import InputError
from fer.evaluation.metrics import summarize, wilson_interval
from fer.evaluation.report import Report, report_folder, save_report
from fer.evaluation.scoring import predict, prepared_file, refuse_trained_on, require_alike, require_fit
from fer.evaluation.text import SCORES, aligned, format_report
from fer.models.checkpoint import is_among, load_checkpoint, read_checkpoint
from fer.models.classifier import EmotionClassifier
from fer.system.files import claiming

#: Of a training's hyper-parameters, those that may differ between the folds of one run.
_OF_A_FOLD = ("data", "counts", "seed")
#: Folds, and persons, that the text lists one by one.
_LISTED = 30


@dataclass(frozen=True, slots=True)
class _Fold:
    """One fold's network, where it was read from, and what it has not seen: its rows in the order of the file."""

    number: int
    ckpt: Path
    model: EmotionClassifier
    dataset: FoldDataset
    sources: list[str]
    paths: list[str]
    groups: list[str]
    #: whether the network was trained on the same pixels in another row
    duplicate: np.ndarray


def evaluate_folds(keys: dict[str, Any], data: dict[str, Any] | None) -> float:
    """Score the folds of the run folders ``keys["folds"]`` together; print and save the report.

    A folder is one of a sweep over data.fold, or of one fold's run. Each fold's network is that of ``last.ckpt``:
    best.ckpt is the epoch that did best on the very rows that are scored. ``data`` is a checked data config, or None
    for the file that the checkpoints name. Returns the accuracy over all rows.

    Raises:
        InputError: no such checkpoints, checkpoints of different runs, files or divisions, a file that has changed, or
            rows that a network was trained on.
    """
    folders = keys["folds"] if isinstance(keys["folds"], list) else [keys["folds"]]
    if keys.get("scales"):
        raise InputError(f"scales={keys['scales']}: not with folds=; leave it out")
    folds, division, name = _load(folders, data)
    headline = "ten_crop" if keys["ten_crop"] else "plain"
    out = Path(keys["out"]) if keys["out"] else Path(folders[0]) / "evaluate" / f"folds-{name}"
    checkpoint = ", ".join(map(str, folders))
    out = report_folder(out, checkpoint=checkpoint, file=division.file, split="folds", headline=headline)
    with claiming(out):
        crops = {"plain": False} | ({"ten_crop": True} if keys["ten_crop"] else {})
        each = {
            crop: [predict(fold.model, fold.dataset, keys["device"], average) for fold in folds]
            for crop, average in crops.items()
        }
        content, tables = _report(folds, division, each, headline, name, checkpoint)
        written = save_report(
            out, content, np.concatenate(each[headline]), _labels(folds), [p for fold in folds for p in fold.paths],
            [s for fold in folds for s in fold.sources], folds[0].model.labels, tables=tables,
        )  # fmt: skip
    print(format_report(content))
    print(f"\n{_text(content['folds'], tables)}")
    print(f"confusion matrix: {written['confusion.png']}\nreport: {written['report.json']}")
    return content[headline]["accuracy"]


def _labels(folds: Sequence[_Fold]) -> np.ndarray:
    return np.concatenate([fold.dataset.labels.numpy() for fold in folds])


def _load(folders: Sequence[Any], data: dict[str, Any] | None) -> tuple[list[_Fold], Folds, str]:
    """Return the folds in their order, how the file is divided, and the data's name."""
    ckpts = [ckpt for folder in folders for ckpt in _checkpoints(folder)]
    models = [load_checkpoint(ckpt) for ckpt in ckpts]
    by_number: dict[int, tuple[Path, EmotionClassifier]] = {}
    for ckpt, model in zip(ckpts, models, strict=True):
        if "folds" not in model.data:
            raise InputError(f"{ckpt}: was trained without data.folds; score it with ckpt={ckpt}")
        _require_one_run(models[0], model, ckpts[0], ckpt)
        number = model.data["fold"]
        if number in by_number:
            raise InputError(
                f"fold {number} stands twice, in {by_number[number][0]} and {ckpt}: give the folders of one run, as "
                "folds=[a,b,...]"
            )
        by_number[number] = ckpt, model
    first = models[0]
    file, name, shards = prepared_file(first, data)
    require_fit(first, read_info(file), str(ckpts[0]))
    division = draw_folds(file, first.data["folds"], first.data["seed"])
    folds = []
    for number, (ckpt, model) in sorted(by_number.items()):
        if number >= len(division):
            raise InputError(f"{file}: has {len(division)} folds, no fold {number} as {ckpt}; {_CHANGED}")
        folds.append(_open(file, division, number, ckpt, model, shards))
    return folds, division, name


_CHANGED = "the file is not the one that it was trained on; prepare that again, or train again"


def _checkpoints(folder: Any) -> list[Path]:
    if not isinstance(folder, str):
        raise InputError(f"folds={folder}: not a run folder, or a list of them")
    path = Path(folder)
    if (own := path / "checkpoints" / "last.ckpt").is_file():
        return [own]
    found = sorted(path.glob("*/checkpoints/last.ckpt"))
    if not found:
        raise InputError(
            f"folds={folder}: no JOB/checkpoints/last.ckpt in it; give the folder of a run with -m "
            "'data.fold=range(10)', such as runs/NAME/DATE"
        )
    return found


def _require_one_run(first: EmotionClassifier, other: EmotionClassifier, first_ckpt: Path, ckpt: Path) -> None:
    """Refuse networks that were trained in another way, or on another division of other data."""
    require_alike(first, other, str(first_ckpt), str(ckpt))
    for key in ("file", "folds", "seed"):
        if first.data[key] != other.data[key]:
            raise InputError(
                f"{ckpt} was trained with data.{key}={other.data[key]}, {first_ckpt} with {first.data[key]}: "
                "give the folds of one division"
            )
    own, theirs = first.hyper_parameters, other.hyper_parameters
    for key in own.keys() | theirs.keys():
        if key not in _OF_A_FOLD and own.get(key) != theirs.get(key):
            raise InputError(
                f"{ckpt} and {first_ckpt} were trained with different values of {key}: give the folds of one run, as "
                "folds=[a,b,...]"
            )


def _open(file: str, division: Folds, number: int, ckpt: Path, model: EmotionClassifier, shards: str | None) -> _Fold:
    """Open the rows of a fold, which are those that its network was validated on, and none that it was trained on."""
    chosen, info = division.val(number), read_info(file)

    def column(name: str) -> np.ndarray:
        return np.concatenate([read_column(file, split, name)[rows] for split, rows in chosen.items()])

    rows, faces = column("row"), column("face")
    sources, paths = [info.sources[code] for code in column("source")], column("path").tolist()
    groups = [read_groups(file, split)[row] for split, numbers in chosen.items() for row in numbers]
    refuse_trained_on(model, rows, sources, paths, f"fold {number} of {file}", str(ckpt))
    if not is_among(rows, model.identities["val_rows"]).all():
        raise InputError(f"{file}: its fold {number} is not the one that {ckpt} was validated on; {_CHANGED}")
    duplicate = is_among(faces, model.identities["train_faces"])
    return _Fold(number, ckpt, model, FoldDataset(file, chosen, shards=shards), sources, paths, groups, duplicate)


def _report(
    folds: Sequence[_Fold], division: Folds, each: dict[str, list[np.ndarray]], headline: str, name: str,
    checkpoint: str,
) -> tuple[dict[str, Any], dict[str, pd.DataFrame]]:  # fmt: skip
    """Return what report.json holds, and the tables of folds and, where they are known, of persons."""
    model, labels = folds[0].model, _labels(folds)
    rows = []
    for fold, probabilities in zip(folds, each[headline], strict=True):
        scores = summarize(probabilities, fold.dataset.labels.numpy(), model.labels)
        low, high = scores["accuracy_95"]
        rows.append(
            {"fold": fold.number, "persons": len(division.persons[fold.number]), "n": scores["n"]}
            | {key: scores[key] for key in SCORES}
            | {"accuracy_low": low, "accuracy_high": high, "checkpoint": str(fold.ckpt)}
        )
    table = pd.DataFrame(rows)
    tables = {"folds.csv": table}
    if any(group for fold in folds for group in fold.groups):
        tables["persons.csv"] = _persons(folds, each[headline])
    whole = np.concatenate(each[headline])
    duplicates = np.concatenate([fold.duplicate for fold in folds])
    without = None
    if duplicates.any() and not duplicates.all():
        without = summarize(whole[~duplicates], labels[~duplicates], model.labels)
    report = Report(
        scores={crop: summarize(np.concatenate(p), labels, model.labels) for crop, p in each.items()},
        headline=headline, split="folds", data=name, file=division.file, checkpoint=checkpoint, model=model.name,
        scales=None, size=model.crop, trained_on=model.data["name"], drawn=model.drawn,
        notes=_notes(folds, division, int(duplicates.sum()), len(labels)), without_duplicates=without,
    )  # fmt: skip
    spread = {
        key: {"mean": float(table[key].mean()), "std": float(table[key].std()) if len(table) > 1 else None}
        for key in SCORES
    }
    scored = {"folds": len(division), "scored": [fold.number for fold in folds], "over_folds": spread}
    return report.as_json() | {"folds": scored}, tables


def _persons(folds: Sequence[_Fold], each: Sequence[np.ndarray]) -> pd.DataFrame:
    """Return the accuracy of each person: source, person, fold, n, correct, and accuracy with its Wilson interval."""
    rows = pd.DataFrame(
        {
            "source": [s for fold in folds for s in fold.sources],
            "person": [g for fold in folds for g in fold.groups],
            "fold": [fold.number for fold in folds for _ in fold.groups],
            "correct": np.concatenate(each).argmax(axis=1) == _labels(folds),
        }
    )
    known = rows[rows["person"] != ""].groupby(["source", "person", "fold"], as_index=False)
    table = known.agg(n=("correct", "size"), correct=("correct", "sum"))
    intervals = [wilson_interval(int(k), int(n)) for k, n in zip(table["correct"], table["n"], strict=True)]
    return table.assign(
        accuracy=table["correct"] / table["n"],
        accuracy_low=[low for low, _ in intervals],
        accuracy_high=[high for _, high in intervals],
    )


def _notes(folds: Sequence[_Fold], division: Folds, duplicates: int, n: int) -> list[str]:
    notes = [
        "each row is scored by the network of its fold after the last epoch, which was not chosen by these rows; where "
        "the recipe or the number of epochs was, the score is optimistic."
    ]
    if any(group for fold in folds for group in fold.groups):
        notes.append(
            "no network was trained on a group (person or sequence) that it is scored on; the intervals take rows as "
            "independent, which those of one person are not, so they are too narrow."
        )
    if missing := [number for number in range(len(division)) if number not in {fold.number for fold in folds}]:
        shown = ", ".join(map(str, missing[:20])) + (", ..." if len(missing) > 20 else "")
        notes.append(f"{len(missing)} of the {len(division)} folds are missing: {shown}.")
    for fold in folds:
        done, wanted = read_checkpoint(fold.ckpt).get("epoch"), fold.model.hyper_parameters["epochs"]
        if type(done) is int and done + 1 < wanted:
            notes.append(f"fold {fold.number} ended after {done + 1} of {wanted} epochs: {fold.ckpt}.")
    if duplicates:
        notes.append(f"{duplicates:,} of the {n:,} faces have the same pixels as a face that their network saw.")
    return notes


def _text(scored: dict[str, Any], tables: dict[str, pd.DataFrame]) -> str:
    """Return the folds, their mean and standard deviation, and the persons, as lines for the terminal."""
    table = tables["folds.csv"]
    rows = [["fold", "persons", "n", "accuracy % [95 %]", "balanced %", "macro F1 %"]]
    for _, row in table.head(_LISTED).iterrows():
        rows.append([str(row["fold"]), str(row["persons"] or "–"), f"{row['n']:,}", _interval(row), *_percents(row)])
    lines = [aligned(rows)] + ([f"and {len(table) - _LISTED:,} more in folds.csv"] if len(table) > _LISTED else [])
    means = []
    for key, name in (("accuracy", "accuracy"), ("balanced_accuracy", "balanced"), ("macro_f1", "macro F1")):
        mean, std = scored["over_folds"][key]["mean"], scored["over_folds"][key]["std"]
        means.append(f"{name} {100 * mean:.2f}" + ("" if std is None else f" ± {100 * std:.2f}") + " %")
    lines.append(f"mean ± standard deviation over {len(table)} folds: {', '.join(means)}")
    if "persons.csv" in tables:
        persons = tables["persons.csv"].sort_values(["accuracy", "person"])
        rows = [["person", "n", "accuracy % [95 %]"]]
        rows += [[row["person"], f"{row['n']:,}", _interval(row)] for _, row in persons.head(_LISTED).iterrows()]
        more = len(persons) - _LISTED
        lines += ["", aligned(rows), *([f"and {more:,} with higher accuracy in persons.csv"] if more > 0 else [])]
    return "\n".join(lines)


def _interval(row: pd.Series) -> str:
    return f"{100 * row['accuracy']:.2f} [{100 * row['accuracy_low']:.2f}, {100 * row['accuracy_high']:.2f}]"


def _percents(row: pd.Series) -> list[str]:
    return [f"{100 * row[key]:.2f}" for key in ("balanced_accuracy", "macro_f1")]
