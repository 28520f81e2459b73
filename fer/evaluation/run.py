"""The run of evaluate.py: load networks and a split, score them, and say what the score is worth."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from fer.data.source import SPLIT_NAMES
from fer.data.storage.hdf5 import read_info
from fer.engines import CHECKPOINT, suffix_of
from fer.errors import InputError
from fer.evaluation.calibration import cross_fit
from fer.evaluation.metrics import summarize
from fer.evaluation.report import Report, report_folder, save_report
from fer.evaluation.scoring import ALL, SplitRows, open_split, predict, prepared_file, require_alike
from fer.evaluation.table import save_table
from fer.evaluation.taxonomy import Common, check_protocol, common_classes
from fer.evaluation.text import format_report
from fer.models.checkpoint import is_among, load_checkpoint
from fer.models.classifier import EmotionClassifier
from fer.models.pretrained import locate
from fer.system.files import claiming

#: Keys that need not be given.
_OFF = {"scales": None, "classes": None, "contempt": None}


def evaluate(keys: dict[str, Any], data: dict[str, Any] | None) -> float:
    """Score ``keys["ckpt"]`` on ``keys["split"]`` of its own or another prepared file; print and save the report.

    ``ckpt`` is a checkpoint, a weight file or a shipped network's name, or a list of them: an ensemble, of which the
    probabilities are averaged. ``data`` is a checked data config, or None for the file that the (first) checkpoint
    names. Where ``keys["classes"]`` is common, those classes are scored that networks and data share (see `taxonomy`).
    Returns the headline accuracy.

    Raises:
        InputError: no such file or split, other classes or another face size, rows that a model was trained on, a size
            in ``keys["scales"]`` that a network can't take, or no such device.
    """
    keys = _OFF | keys
    networks = _load(keys)
    content, written = _evaluate(keys, _open(keys, networks, data))
    print(format_report(content))
    print(f"confusion matrix: {written['confusion.png']}\nreport: {written['report.json']}")
    return content[content["headline"]]["accuracy"]


def evaluate_each(keys: dict[str, Any], data: dict[str, dict[str, Any]]) -> None:
    """Score ``keys["ckpt"]`` on several data sets (name -> checked data config); print and save one table of them.

    Each has a report of its own too, in a folder beside the table. Where ``keys["split"]`` is None a data set is scored
    on its test split, or on val where it has no test. Everything is checked before anything is scored.

    Raises:
        InputError: as `evaluate`, of any of them.
    """
    keys = _OFF | keys
    networks = _load(keys)
    suffix = "-common" if keys["classes"] else ""
    name = f"{'+'.join(data)}{suffix}".replace("/", "-")
    folder = Path(keys["out"]) if keys["out"] else _folder(networks.ckpts, name)
    cases = [_open(keys, networks, config, name, folder) for name, config in data.items()]
    made_of = {
        "task": "table", "checkpoint": networks.checkpoint,
        "data": [[case.name, case.file, case.split] for case in cases],
        "headline": _headline(keys), **{key: keys[key] for key in ("scales", "classes", "contempt")},
    }  # fmt: skip
    # the reports lie in the folder of the table, which is another where that one holds a table of other things
    folder = report_folder(folder, **made_of)
    with claiming(folder):
        reports = []
        for case in cases:
            content, written = _evaluate(keys, replace(case, folder=folder / case.folder.name))
            reports.append((content, written["report.json"].parent.name))
        print(save_table(folder, made_of, reports))
    print(f"table: {folder / 'table.csv'}")


def _evaluate(keys: dict[str, Any], case: "_Case") -> tuple[dict[str, Any], dict[str, Path]]:
    """Score what is loaded, write its report and return that and its files."""
    headline, rows = _headline(keys), case.rows
    folder = report_folder(
        case.folder, checkpoint=case.networks.checkpoint, file=case.file, split=case.split, scales=keys["scales"],
        headline=headline, classes=keys["classes"], contempt=keys["contempt"],
    )  # fmt: skip
    with claiming(folder):
        probabilities = _score(case, keys)
        content = _report(case, keys, probabilities).as_json()
        own: dict[str, Any] = {}
        if case.common:
            names = np.asarray(rows.info.class_names, object)[rows.labels]
            table = pd.DataFrame({"source": rows.sources, "path": rows.paths, "own_label": names}, dtype=object)
            own = {"own_labels": names[case.kept].tolist(), "tables": {"left_out.csv": table[~case.kept]}}
        sources, paths = (np.asarray(texts, object)[case.kept].tolist() for texts in (rows.sources, rows.paths))
        written = save_report(
            folder, content, probabilities[headline], case.labels, paths, sources, case.class_names, **own
        )
    return content, written


@dataclass(frozen=True, slots=True)
class _Networks:
    """A checkpoint, or several: an ensemble."""

    ckpts: list[str]
    models: list[EmotionClassifier]

    @property
    def checkpoint(self) -> str | list[str]:
        return self.ckpts if len(self.ckpts) > 1 else self.ckpts[0]


@dataclass(frozen=True, slots=True)
class _Case:
    """What is scored, and where the report goes; ``name`` is the data's, ``common`` the classes in common, or None."""

    networks: _Networks
    file: str
    name: str
    split: str
    folder: Path
    rows: SplitRows
    common: Common | None

    @property
    def kept(self) -> np.ndarray:
        """Which rows are scored, bool."""
        return self.common.kept(self.rows.labels) if self.common else np.ones(len(self.rows.labels), bool)

    @property
    def labels(self) -> np.ndarray:
        """The labels of the rows that are scored, as indices of ``class_names``."""
        labels = self.rows.labels[self.kept]
        return self.common.data[labels] if self.common else labels

    @property
    def class_names(self) -> list[str]:
        return self.common.names if self.common else self.networks.models[0].labels


def _headline(keys: dict[str, Any]) -> str:
    return "ten_crop" if keys["ten_crop"] else "plain"


def _load(keys: dict[str, Any]) -> _Networks:
    check_protocol(keys["classes"], keys["contempt"])
    ckpts = _listed(keys["ckpt"])
    models = [load_checkpoint(ckpt) for ckpt in ckpts]
    for model, ckpt in zip(models[1:], ckpts[1:], strict=True):
        require_alike(models[0], model, ckpts[0], ckpt, same_classes=not keys["classes"])
    _check_scales(keys["scales"], keys["ten_crop"], models)
    return _Networks(ckpts, models)


def _open(
    keys: dict[str, Any], networks: _Networks, data: dict[str, Any] | None, name: str | None = None,
    table: Path | None = None,
) -> _Case:  # fmt: skip
    """Open the data; ``name`` is what a table calls them, and ``table`` where that goes."""
    ckpts, models = networks.ckpts, networks.models
    file, own_name, shards = prepared_file(models[0], data)
    name = name or own_name
    split = _split(keys["split"], file if table else None)
    rows = open_split(models, ckpts, file, split, shards, same_classes=not keys["classes"])
    common = None
    if keys["classes"]:
        of_split = np.bincount(rows.labels, minlength=len(rows.info.class_names))
        labels = {ckpt: model.labels for ckpt, model in zip(ckpts, models, strict=True)}
        common = common_classes(
            labels, rows.info.class_names, rows.all_rows.tolist(), of_split.tolist(), keys["contempt"], file
        )
    what = f"{name}-{split}{'-common' if common else ''}".replace("/", "-")
    folder = table / what if table else Path(keys["out"]) if keys["out"] else _folder(ckpts, what)
    return _Case(networks, file, name, split, folder, rows, common)


def _split(given: str | None, file: str | None) -> str:
    """Return the split that is asked for; by default val, or of the ``file`` of a table test, or val without it."""
    if given is None:
        if file is None:
            return "val"
        has = read_info(file).counts
        if found := next((split for split in ("test", "val") if split in has), None):
            return found
        raise InputError(f"{file}: has no test or val split (it has {', '.join(has)}); split=all scores every row")
    split = given.lower() if given.lower() == ALL else SPLIT_NAMES.get(given.lower())
    if split not in ("val", "test", ALL):
        raise InputError(f"split={given}: not val (PublicTest) or test (PrivateTest), or all (every row of the file)")
    return split


def _score(case: _Case, keys: dict[str, Any]) -> dict[str, np.ndarray]:
    """Return the mean probabilities (N, classes) of the networks for each way to crop; the last one is the headline."""
    crops: dict[str, tuple[bool, Sequence[int]]] = {"plain": (False, ())}
    if keys["ten_crop"]:
        crops["ten_crop"] = (True, keys["scales"] or ())
    datasets, common = case.rows.open(), case.common
    # what is in common is found in logits: of probabilities all that is left may be 0
    of_logits = torch.Tensor.float if common else None

    def probabilities(index: int, average_ten_crop: bool, scales: Sequence[int]) -> np.ndarray:
        model = case.networks.models[index]
        parts = [predict(model, each, keys["device"], average_ten_crop, scales, of_logits) for each in datasets]
        outputs = np.concatenate(parts)
        return common.fold(outputs[case.kept], index) if common else outputs

    return {
        crop: np.mean([probabilities(index, *options) for index in range(len(case.networks.models))], axis=0)
        for crop, options in crops.items()
    }


def _report(case: _Case, keys: dict[str, Any], probabilities: dict[str, np.ndarray]) -> Report:
    models, rows, labels, kept = case.networks.models, case.rows, case.labels, case.kept
    duplicates = np.any([is_among(rows.faces[kept], model.identities["train_faces"]) for model in models], axis=0)
    validated = np.any([is_among(rows.rows[kept], model.identities["val_rows"]) for model in models], axis=0)
    headline = list(probabilities)[-1]
    without_duplicates = None
    if duplicates.any() and not duplicates.all():
        without_duplicates = summarize(probabilities[headline][~duplicates], labels[~duplicates], case.class_names)
    return Report(
        scores={crop: _scores(p, labels, case.class_names) for crop, p in probabilities.items()},
        headline=headline,
        split=case.split,
        data=case.name,
        file=case.file,
        checkpoint=case.networks.checkpoint,
        model=" + ".join(model.name for model in models),
        scales=keys["scales"],
        size=models[0].crop if len({model.crop for model in models}) == 1 else None,
        trained_on=" + ".join(dict.fromkeys(model.data["name"] for model in models)),
        drawn=rows.info.drawn or any(model.drawn for model in models),
        notes=[
            *_notes(int(validated.sum()), int(duplicates.sum()), len(labels)),
            *(
                f"{ckpt} does not tell which rows it was trained on, so nothing was refused for that."
                for ckpt, model in zip(case.networks.ckpts, models, strict=True)
                if not len(model.identities["train_rows"])
            ),
        ],
        without_duplicates=without_duplicates,
        classes=keys["classes"],
        contempt=keys["contempt"],
        common=case.common.facts if case.common else None,
    )


def _scores(probabilities: np.ndarray, labels: np.ndarray, class_names: list[str]) -> dict[str, Any]:
    """Return `summarize`, and calibration after temperature scaling where there is more than one row."""
    scores = summarize(probabilities, labels, class_names)
    if len(labels) > 1:
        scaled, temperatures = cross_fit(probabilities, labels)
        after = summarize(scaled, labels, class_names)
        scores["temperature_scaled"] = {
            "temperatures": list(temperatures), "ece": after["ece"], "nll": after["nll"],
            "fitted": "each half of these rows with the temperature fitted on the other half",
        }  # fmt: skip
    return scores


def _notes(validated: int, duplicates: int, n: int) -> list[str]:
    notes = []
    if validated:
        notes.append(
            f"{validated:,} of these {n:,} rows are validation rows of the training: where the epoch (best.ckpt), the "
            "recipe or the temperature was chosen by them, the score is optimistic; it is no test of the model."
        )
    if duplicates:
        notes.append(f"{duplicates:,} of the {n:,} faces have the same pixels as a face that the model was trained on.")
    return notes


def _folder(ckpts: Sequence[str], split: str) -> Path:
    if len(ckpts) > 1:
        raise InputError("out is not set: an ensemble lies in no folder of its own, give out=FOLDER for its report")
    path = locate(ckpts[0])
    run = path.parent.parent if suffix_of(path) == CHECKPOINT else Path("runs", path.stem)
    return run / "evaluate" / f"{path.stem}-{split}"


def _listed(ckpt: Any) -> list[str]:
    ckpts = ckpt if isinstance(ckpt, list) else [ckpt]
    if not ckpts or not all(isinstance(ckpt, str) for ckpt in ckpts):
        raise InputError(f"ckpt={ckpt}: not a path or a name, or a list of them")
    if twice := [ckpt for ckpt in ckpts if ckpts.count(ckpt) > 1]:
        raise InputError(f"ckpt: {twice[0]} stands twice in the ensemble")
    return ckpts


def _check_scales(scales: Sequence[int] | None, ten_crop: bool, models: Sequence[EmotionClassifier]) -> None:
    if scales and not ten_crop:
        raise InputError(f"scales={list(scales)}: sizes of the ten crops, which ten_crop=false leaves out")
    for model in models:
        largest = min(model.face.size, model.net.largest or model.face.size)
        for size in scales or ():
            if not model.net.smallest <= size <= largest:
                raise InputError(
                    f"scales: crops of {size} pixels, but a {model.net.name} for faces of "
                    f"{model.face.size} takes {model.net.smallest} to {largest}"
                )
