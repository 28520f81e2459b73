"""Scoring a checkpoint on a split of a prepared file, and saying what the score is worth."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from fer.checkpoint import load_checkpoint
from fer.classifier import EmotionClassifier
from fer.compare import format_report
from fer.data.module import EvalBatches, FaceDataset
from fer.data.prepare import command_for
from fer.data.source import SPLIT_NAMES
from fer.data.store import StoreInfo, read_column, read_info
from fer.errors import InputError
from fer.labels import require_same
from fer.report import save_report, summarize


def evaluate(keys: dict[str, Any], data: dict[str, Any] | None) -> float:
    """Score ``keys["ckpt"]`` on ``keys["split"]`` of its own or another prepared file; print and save the report.

    ``data`` is a checked data config, or None for the file that the checkpoint names. Returns the headline accuracy.

    Raises:
        InputError: no such file or split, other classes or another face size, or rows that the model was trained on.
    """
    model = load_checkpoint(keys["ckpt"])
    file, name = (data["file"], data["name"]) if data else (model.hparams.data["file"], model.hparams.data["name"])
    if not Path(file).is_file():
        command = command_for(data) if data else "python prepare.py"
        raise InputError(f"{file}: no such file; make it with `{command}`, or give data=NAME")
    info = read_info(file)
    _require_fit(model, info, keys["ckpt"])
    split = SPLIT_NAMES.get(keys["split"].lower())
    if split not in ("val", "test"):
        raise InputError(f"split={keys['split']}: not val (PublicTest) or test (PrivateTest)")
    rows, faces = read_column(file, split, "row"), read_column(file, split, "face")
    sources = [info.sources[code] for code in read_column(file, split, "source")]
    paths = read_column(file, split, "path").tolist()
    _refuse_trained_on(model, rows, sources, paths, f"split={split} of {file}", keys["ckpt"])
    seen = np.isin(faces, model.identities["train_faces"].numpy())
    chosen_on = int(np.isin(rows, model.identities["val_rows"].numpy()).sum())

    dataset = FaceDataset(file, split)
    labels = dataset.labels.numpy()
    classes = model.labels
    probabilities = {"plain": predict(model, dataset, keys["device"], average_ten_crop=False)}
    if keys["ten_crop"]:
        probabilities["ten_crop"] = predict(model, dataset, keys["device"], average_ten_crop=True)
    headline = "ten_crop" if keys["ten_crop"] else "plain"
    report: dict[str, Any] = {crop: summarize(p, labels, classes) for crop, p in probabilities.items()}
    report |= {
        "headline": headline, "split": split, "data": name, "file": str(file), "checkpoint": str(keys["ckpt"]),
        "model": model.hparams.model["name"], "size": model.crop, "trained_on": model.hparams.data["name"],
        "drawn": info.drawn or model.hparams.data["drawn"], "notes": _notes(chosen_on, seen, len(rows)),
    }  # fmt: skip
    if seen.any() and not seen.all():
        report["without_duplicates"] = summarize(probabilities[headline][~seen], labels[~seen], classes)
    folder = Path(keys["out"]) if keys["out"] else Path(keys["ckpt"]).parent.parent / "evaluate" / f"{name}-{split}"
    written = save_report(folder, report, probabilities[headline], labels, paths, sources, classes)
    print(format_report(report))
    print(f"confusion matrix: {written['confusion.png']}\nreport: {written['report.json']}")
    return report[headline]["accuracy"]


@torch.inference_mode()
def predict(model: EmotionClassifier, dataset: FaceDataset, device: str, average_ten_crop: bool) -> np.ndarray:
    """Return class probabilities (N, classes) of all faces, in file order."""
    where = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    model = model.to(where).eval()
    loader = DataLoader(dataset, batch_size=None, sampler=EvalBatches(len(dataset)))
    bar = tqdm(loader, desc="ten-crop" if average_ten_crop else "centre crop", unit="batch", leave=False)
    return torch.cat([model(batch.image.to(where), average_ten_crop).softmax(1).cpu() for batch in bar]).numpy()


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
    trained = np.isin(rows, model.identities["train_rows"].numpy())
    if trained.any():
        first = int(trained.argmax())
        raise InputError(
            f"{what}: {int(trained.sum()):,} of its {len(rows):,} rows are rows that {checkpoint} was trained on "
            f"(the first: {sources[first]} {paths[first]}); a score on them would mean nothing"
        )


def _notes(chosen_on: int, seen: np.ndarray, n: int) -> list[str]:
    notes = []
    if chosen_on:
        notes.append(
            f"The checkpoint was chosen among epochs by its accuracy on {chosen_on:,} of these {n:,} rows, "
            "so the score is optimistic; it is no test of the model."
        )
    if count := int(seen.sum()):
        notes.append(f"{count:,} of the {n:,} faces have the same pixels as a face that the model was trained on.")
    return notes
