"""The run of evaluate.py: load networks and a split, score them, and say what the score is worth."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fer.data.source import SPLIT_NAMES
from fer.engines import CHECKPOINT, suffix_of
from fer.errors import InputError
from fer.evaluation.calibration import cross_fit
from fer.evaluation.metrics import summarize
from fer.evaluation.report import Report, report_folder, save_report
from fer.evaluation.scoring import SplitRows, open_split, predict, prepared_file, require_alike
from fer.evaluation.text import format_report
from fer.models.checkpoint import is_among, load_checkpoint
from fer.models.classifier import EmotionClassifier
from fer.models.pretrained import locate
from fer.system.files import claiming


def evaluate(keys: dict[str, Any], data: dict[str, Any] | None) -> float:
    """Score ``keys["ckpt"]`` on ``keys["split"]`` of its own or another prepared file; print and save the report.

    ``ckpt`` is a checkpoint, a weight file or a shipped network's name, or a list of them: an ensemble, of which the
    probabilities are averaged. ``data`` is a checked data config, or None for the file that the (first) checkpoint
    names. Returns the headline accuracy.

    Raises:
        InputError: no such file or split, other classes or another face size, rows that a model was trained on, a size
            in ``keys["scales"]`` that a network can't take, or no such device.
    """
    case = _load(keys, data)
    headline = "ten_crop" if keys["ten_crop"] else "plain"
    checkpoint = case.ckpts if len(case.ckpts) > 1 else case.ckpts[0]
    folder = report_folder(
        case.folder, checkpoint=checkpoint, file=str(case.file), split=case.split, scales=case.scales, headline=headline
    )
    with claiming(folder):
        probabilities = _score(case, keys["ten_crop"], keys["device"])
        report = _report(case, probabilities)
        content = report.as_json()
        written = save_report(
            folder, content, probabilities[headline], case.labels, case.rows.paths, case.rows.sources, case.class_names
        )
    print(format_report(content))
    print(f"confusion matrix: {written['confusion.png']}\nreport: {written['report.json']}")
    return report.scores[report.headline]["accuracy"]


@dataclass(frozen=True, slots=True)
class _Case:
    """What is scored, and where the report goes; ``name`` is the data's."""

    ckpts: list[str]
    models: list[EmotionClassifier]
    file: str
    name: str
    split: str
    scales: list[int] | None
    folder: Path
    rows: SplitRows

    @property
    def labels(self) -> np.ndarray:
        return self.rows.dataset.labels.numpy()

    @property
    def class_names(self) -> list[str]:
        return self.models[0].labels


def _load(keys: dict[str, Any], data: dict[str, Any] | None) -> _Case:
    ckpts = _listed(keys["ckpt"])
    models = [load_checkpoint(ckpt) for ckpt in ckpts]
    for model, ckpt in zip(models[1:], ckpts[1:], strict=True):
        require_alike(models[0], model, ckpts[0], ckpt)
    file, name, shards = prepared_file(models[0], data)
    split = SPLIT_NAMES.get(keys["split"].lower(), "")
    if split not in ("val", "test"):
        raise InputError(f"split={keys['split']}: not val (PublicTest) or test (PrivateTest)")
    scales = keys.get("scales")
    _check_scales(scales, keys["ten_crop"], models)
    folder = Path(keys["out"]) if keys["out"] else _folder(ckpts, f"{name}-{split}")
    return _Case(ckpts, models, file, name, split, scales, folder, open_split(models, ckpts, file, split, shards))


def _score(case: _Case, ten_crop: bool, device: str) -> dict[str, np.ndarray]:
    """Return the mean probabilities (N, classes) of the networks for each way to crop; the last one is the headline."""
    crops: dict[str, tuple[bool, Sequence[int]]] = {"plain": (False, ())}
    if ten_crop:
        crops["ten_crop"] = (True, case.scales or ())
    return {
        crop: np.mean([predict(model, case.rows.dataset, device, *options) for model in case.models], axis=0)
        for crop, options in crops.items()
    }


def _report(case: _Case, probabilities: dict[str, np.ndarray]) -> Report:
    models, rows, labels = case.models, case.rows, case.labels
    duplicates = np.any([is_among(rows.faces, model.identities["train_faces"]) for model in models], axis=0)
    validated = np.any([is_among(rows.rows, model.identities["val_rows"]) for model in models], axis=0)
    headline = list(probabilities)[-1]
    without_duplicates = None
    if duplicates.any() and not duplicates.all():
        without_duplicates = summarize(probabilities[headline][~duplicates], labels[~duplicates], case.class_names)
    return Report(
        scores={crop: _scores(p, labels, case.class_names) for crop, p in probabilities.items()},
        headline=headline,
        split=case.split,
        data=case.name,
        file=str(case.file),
        checkpoint=case.ckpts if len(case.ckpts) > 1 else case.ckpts[0],
        model=" + ".join(model.name for model in models),
        scales=case.scales,
        size=models[0].crop if len({model.crop for model in models}) == 1 else None,
        trained_on=" + ".join(dict.fromkeys(model.data["name"] for model in models)),
        drawn=rows.drawn or any(model.drawn for model in models),
        notes=_notes(int(validated.sum()), int(duplicates.sum()), len(labels)),
        without_duplicates=without_duplicates,
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
