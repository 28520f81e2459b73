"""Scoring a checkpoint or an ensemble on a split of a prepared file, and saying what the score is worth."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from fer.data.loading.dataset import EvalBatches, FaceDataset
from fer.data.preparation.summary import command_for
from fer.data.source import SPLIT_NAMES
from fer.data.storage.hdf5 import StoreInfo, read_column, read_info
from fer.errors import InputError
from fer.evaluation.calibration import cross_fit, fit_temperature
from fer.evaluation.compare import format_report
from fer.evaluation.report import save_report, summarize
from fer.labels import require_same
from fer.models.checkpoint import is_among, load_checkpoint
from fer.models.pretrained import locate
from fer.training.augment import ten_crop
from fer.training.module import EmotionClassifier, to_unit


def evaluate(keys: dict[str, Any], data: dict[str, Any] | None) -> float:
    """Score ``keys["ckpt"]`` on ``keys["split"]`` of its own or another prepared file; print and save the report.

    ``ckpt`` is a checkpoint, a weight file or a shipped network's name, or a list of them: an ensemble, of which the
    probabilities are averaged. ``data`` is a checked data config, or None for the file that the (first) checkpoint
    names. Returns the headline accuracy.

    Raises:
        InputError: no such file or split, other classes or another face size, rows that a model was trained on, or a
            size in ``keys["scales"]`` that a network can't take.
    """
    ckpts = _listed(keys["ckpt"])
    models = [load_checkpoint(ckpt) for ckpt in ckpts]
    for model, ckpt in zip(models[1:], ckpts[1:], strict=True):
        _require_alike(models[0], model, ckpts[0], ckpt)
    file, name, shards = prepared_file(models[0], data)
    split = SPLIT_NAMES.get(keys["split"].lower())
    if split not in ("val", "test"):
        raise InputError(f"split={keys['split']}: not val (PublicTest) or test (PrivateTest)")
    scales = keys.get("scales")
    _check_scales(scales, keys["ten_crop"], models)
    folder = Path(keys["out"]) if keys["out"] else _folder(ckpts, f"{name}-{split}")
    rows = open_split(models, ckpts, file, split, shards)
    seen = np.any([is_among(rows.faces, model.identities["train_faces"]) for model in models], axis=0)
    validated = np.any([is_among(rows.rows, model.identities["val_rows"]) for model in models], axis=0)

    labels, classes = rows.dataset.labels.numpy(), models[0].labels
    ways: dict[str, tuple[bool, Sequence[int]]] = {"plain": (False, ())}
    if keys["ten_crop"]:
        ways["ten_crop"] = (True, scales or ())
    probabilities = {
        crop: np.mean([predict(model, rows.dataset, keys["device"], *way) for model in models], axis=0)
        for crop, way in ways.items()
    }
    headline = list(ways)[-1]
    report: dict[str, Any] = {crop: summarize(p, labels, classes) for crop, p in probabilities.items()}
    for crop, p in probabilities.items():
        if len(labels) > 1:
            scaled, temperatures = cross_fit(p, labels)
            after = summarize(scaled, labels, classes)
            report[crop]["temperature_scaled"] = {
                "temperatures": list(temperatures), "ece": after["ece"], "nll": after["nll"],
                "fitted": "each half of these rows with the temperature fitted on the other half",
            }  # fmt: skip
    report |= {
        "headline": headline, "split": split, "data": name, "file": str(file),
        "checkpoint": ckpts if len(ckpts) > 1 else ckpts[0],
        "model": " + ".join(model.hparams.model["name"] for model in models), "scales": scales,
        "size": models[0].crop if len({model.crop for model in models}) == 1 else None,
        "trained_on": " + ".join(dict.fromkeys(model.hparams.data["name"] for model in models)),
        "drawn": rows.drawn or any(model.hparams.data["drawn"] for model in models),
        "notes": _notes(int(validated.sum()), seen, len(labels)),
    }  # fmt: skip
    if seen.any() and not seen.all():
        report["without_duplicates"] = summarize(probabilities[headline][~seen], labels[~seen], classes)
    written = save_report(folder, report, probabilities[headline], labels, rows.paths, rows.sources, classes)
    print(format_report(report))
    print(f"confusion matrix: {written['confusion.png']}\nreport: {written['report.json']}")
    return report[headline]["accuracy"]


@dataclass(frozen=True, slots=True)
class Rows:
    """A split that may be scored: its faces, their row and face hashes int64 (N,), and where each row stood."""

    dataset: FaceDataset
    rows: np.ndarray
    faces: np.ndarray
    sources: list[str]
    paths: list[str]
    drawn: bool


def open_split(
    models: Sequence[EmotionClassifier], ckpts: Sequence[str], file: str, split: str, shards: str | None = None
) -> Rows:
    """Open a split of a prepared file on which to score models; ``ckpts`` are what errors call them.

    ``shards`` is where those of a folder lie, as the user says.

    Raises:
        InputError: no such split, other classes or another face size, or rows that a model was trained on.
    """
    info = read_info(file)
    for model, ckpt in zip(models, ckpts, strict=True):
        _require_fit(model, info, ckpt)
    rows, faces = read_column(file, split, "row"), read_column(file, split, "face")
    sources = [info.sources[code] for code in read_column(file, split, "source")]
    paths = read_column(file, split, "path").tolist()
    for model, ckpt in zip(models, ckpts, strict=True):
        _refuse_trained_on(model, rows, sources, paths, f"split={split} of {file}", ckpt)
    return Rows(FaceDataset(file, split, shards=shards), rows, faces, sources, paths, info.drawn)


def prepared_file(model: EmotionClassifier, data: dict[str, Any] | None) -> tuple[str, str, str | None]:
    """Return the file, the name and the shards' place of a checked data config, or of the data of the training.

    Raises:
        InputError: there is no such file.
    """
    chosen = data or model.hparams.data
    if not Path(chosen["file"]).exists():
        command = command_for(data) if data else "python prepare.py"
        raise InputError(f"{chosen['file']}: no such file; make it with `{command}`, or give data=NAME")
    # where shards lie is for the user to say, never for a checkpoint
    return chosen["file"], chosen["name"], (data or {}).get("shards")


@torch.inference_mode()
def predict(
    model: EmotionClassifier, dataset: FaceDataset, device: str, average_ten_crop: bool, scales: Sequence[int] = ()
) -> np.ndarray:
    """Return class probabilities (N, classes) of all faces, in file order.

    The logits are those of the centre crop or the mean of ten crops; ``scales`` are the sizes in pixels over which ten
    crops are averaged, none for the network's own.
    """
    where = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    # channels last, which is faster on a CPU
    model = model.to(where, memory_format=torch.channels_last).eval()
    loader = DataLoader(dataset, batch_size=None, sampler=EvalBatches(len(dataset)))
    bar = tqdm(loader, desc="ten-crop" if average_ten_crop else "centre crop", unit="batch", leave=False)

    def logits(faces: torch.Tensor) -> torch.Tensor:
        if not scales:
            return model(faces, average_ten_crop)
        of_crops = [model.net(to_unit(ten_crop(faces, size).flatten(0, 1))) for size in scales]
        return torch.stack([each.view(len(faces), 10, -1).mean(1) for each in of_crops]).mean(0)

    return torch.cat([logits(batch.image.to(where)).softmax(1).cpu() for batch in bar]).numpy()


def val_temperature(ckpt: str | Path, data: dict[str, Any] | None) -> float:
    """Return, and print, the temperature fitted to centre crops of the val split of a checked data config's file.

    None for ``data`` is the file that the checkpoint names. On these rows later scores of calibration are optimistic.

    Raises:
        InputError: no such file, or one that does not fit or that the checkpoint was trained on.
    """
    model = load_checkpoint(ckpt)
    file, _, shards = prepared_file(model, data)
    faces = open_split([model], [str(ckpt)], file, "val", shards).dataset
    temperature = fit_temperature(predict(model, faces, "cpu", average_ten_crop=False), faces.labels.numpy())
    print(f"temperature {temperature:.4f}, fitted to {len(faces):,} val faces of {file}")
    return temperature


def _folder(ckpts: Sequence[str], split: str) -> Path:
    if len(ckpts) > 1:
        raise InputError("out is not set: an ensemble lies in no folder of its own, give out=FOLDER for its report")
    path = locate(ckpts[0])
    run = path.parent.parent if path.suffix == ".ckpt" else Path("runs", path.stem)
    return run / "evaluate" / split


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
        largest = min(model.hparams.face["size"], model.net.largest or model.hparams.face["size"])
        for size in scales or ():
            if not model.net.smallest <= size <= largest:
                raise InputError(
                    f"scales: crops of {size} pixels, but a {model.net.name} for faces of "
                    f"{model.hparams.face['size']} takes {model.net.smallest} to {largest}"
                )


def _require_alike(first: EmotionClassifier, other: EmotionClassifier, first_ckpt: str, other_ckpt: str) -> None:
    require_same(first.labels, other.labels, first_ckpt, other_ckpt)
    for key in ("size", "color"):
        if (wanted := first.hparams.face[key]) != (found := other.hparams.face[key]):
            raise InputError(
                f"{other_ckpt} takes faces of {key} {found}, {first_ckpt} of {key} {wanted}: "
                "the networks of an ensemble must take the same faces"
            )


def _require_fit(model: EmotionClassifier, info: StoreInfo, checkpoint: str) -> None:
    require_same(model.labels, info.class_names, checkpoint, str(info.path))
    for key in ("size", "color"):
        wanted, found = model.hparams.face[key], getattr(info.face, key)
        if wanted != found:
            raise InputError(
                f"{checkpoint} was trained on faces of {key} {wanted}, {info.path} holds {found}; "
                f"prepare it with data.{key}={wanted}"
            )


def _refuse_trained_on(model, rows, sources, paths, what: str, checkpoint: str) -> None:
    trained = is_among(rows, model.identities["train_rows"])
    if trained.any():
        first = int(trained.argmax())
        raise InputError(
            f"{what}: {int(trained.sum()):,} of its {len(rows):,} rows are rows that {checkpoint} was trained on "
            f"(the first: {sources[first]} {paths[first]}); a score on them would mean nothing"
        )


def _notes(validated: int, seen: np.ndarray, n: int) -> list[str]:
    notes = []
    if validated:
        notes.append(
            f"{validated:,} of these {n:,} rows are validation rows of the training: where the epoch (best.ckpt), the "
            "recipe or the temperature was chosen by them, the score is optimistic; it is no test of the model."
        )
    if count := int(seen.sum()):
        notes.append(f"{count:,} of the {n:,} faces have the same pixels as a face that the model was trained on.")
    return notes
