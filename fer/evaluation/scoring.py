"""Scoring classifiers on a split of a prepared file: what may be scored, and the probabilities."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from fer.data.loading.dataset import EvalBatches, FaceDataset
from fer.data.preparation.summary import command_for
from fer.data.storage.hdf5 import StoreInfo, read_column, read_info
from fer.errors import InputError
from fer.evaluation.calibration import fit_temperature
from fer.labels import require_same
from fer.models.checkpoint import is_among, load_checkpoint
from fer.models.classifier import EmotionClassifier
from fer.system.command import command
from fer.system.device import to_device

#: What an error says where classes differ.
REMEDY = "evaluate's classes=common scores those in common"
#: Beside the names of splits: every row of the file.
ALL = "all"


@dataclass(frozen=True, slots=True)
class SplitRows:
    """A split that may be scored: labels, row and face hashes int64 (N,), and where each row stood.

    ``parts`` are the splits of the file that it consists of, ``all_rows`` the numbers of rows of each of its classes in
    the whole file.
    """

    info: StoreInfo
    parts: list[str]
    shards: str | None
    labels: np.ndarray
    rows: np.ndarray
    faces: np.ndarray
    sources: list[str]
    paths: list[str]

    @property
    def all_rows(self) -> np.ndarray:
        return np.sum([n for by_source in self.info.counts.values() for n in by_source.values()], axis=0)

    def open(self) -> list[FaceDataset]:
        """Read the faces, one data set a part; together they are in the order of the rows."""
        return [FaceDataset(self.info.path, part, shards=self.shards) for part in self.parts]


def open_split(
    models: Sequence[EmotionClassifier],
    ckpts: Sequence[str],
    file: str,
    split: str,
    shards: str | None = None,
    same_classes: bool = True,
) -> SplitRows:
    """Open a split of a prepared file, or `ALL`, on which to score models; ``ckpts`` are what errors call them.

    ``shards`` is where those of a folder lie, as the user says. ``same_classes=False`` lets classes differ.

    Raises:
        InputError: no such split, other classes or another face size, or rows that a model was trained on.
    """
    info = read_info(file)
    for model, ckpt in zip(models, ckpts, strict=True):
        require_fit(model, info, ckpt, same_classes)
    parts = list(info.counts) if split == ALL else [split]

    def column(name: str) -> np.ndarray:
        return np.concatenate([read_column(file, part, name) for part in parts])

    rows, faces = column("row"), column("face")
    sources = [info.sources[code] for code in column("source")]
    paths = column("path").tolist()
    for model, ckpt in zip(models, ckpts, strict=True):
        refuse_trained_on(model, rows, sources, paths, f"split={split} of {file}", ckpt)
    return SplitRows(info, parts, shards, column("label"), rows, faces, sources, paths)


def prepared_file(model: EmotionClassifier, data: dict[str, Any] | None) -> tuple[str, str, str | None]:
    """Return the file, the name and the shards' place of a checked data config, or of the data of the training.

    Raises:
        InputError: there is no such file.
    """
    config = data or model.data
    if "module" in config:
        raise InputError(
            f"the network was trained on the data module {config['module']}, but only prepared files are scored: "
            f"make one with `{command('prepare')}` and give data=NAME"
        )
    if not Path(config["file"]).exists():
        raise InputError(f"{config['file']}: no such file; make it with `{command_for(config)}`, or give data=NAME")
    # where shards lie is for the user to say, never for a checkpoint
    return config["file"], config["name"], (data or {}).get("shards")


@torch.inference_mode()
def predict(
    model: EmotionClassifier,
    dataset: FaceDataset,
    device: str,
    average_ten_crop: bool,
    scales: Sequence[int] = (),
    of_logits: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> np.ndarray:
    """Return class probabilities (N, classes) of all faces, in file order, or what ``of_logits`` makes of the logits.

    The logits (n, classes) are those of the centre crop or the mean of ten crops; ``scales`` are the sizes in pixels
    over which ten crops are averaged, none for the network's own.

    Raises:
        InputError: there is no such device.
    """
    of_logits = of_logits or (lambda logits: logits.softmax(1))
    _, place = to_device(model.net, device)
    model.net.eval()
    loader = DataLoader(dataset, batch_size=None, sampler=EvalBatches(len(dataset)))

    def logits(faces: torch.Tensor) -> torch.Tensor:
        if not scales:
            return model(faces, average_ten_crop)
        return torch.stack([model.ten_crop_logits(faces, size) for size in scales]).mean(0)

    name = "ten-crop" if average_ten_crop else "centre crop"
    with tqdm(loader, desc=name, unit="batch", leave=False) as bar:
        return torch.cat([of_logits(logits(batch.image.to(place))).cpu() for batch in bar]).numpy()


def val_temperature(ckpt: str | Path, data: dict[str, Any] | None) -> float:
    """Return, and print, the temperature fitted to centre crops of the val split of a checked data config's file.

    None for ``data`` is the file that the checkpoint names. On these rows later scores of calibration are optimistic.

    Raises:
        InputError: no such file, or one that does not fit or that the checkpoint was trained on.
    """
    model = load_checkpoint(ckpt)
    file, _, shards = prepared_file(model, data)
    (faces,) = open_split([model], [str(ckpt)], file, "val", shards).open()
    temperature = fit_temperature(predict(model, faces, "cpu", average_ten_crop=False), faces.labels.numpy())
    print(f"temperature {temperature:.4f}, fitted to {len(faces):,} val faces of {file}")
    return temperature


def require_alike(
    first: EmotionClassifier, other: EmotionClassifier, first_ckpt: str, other_ckpt: str, same_classes: bool = True
) -> None:
    """Refuse two networks of an ensemble that take other faces or, with ``same_classes``, tell others; InputError."""
    if same_classes:
        require_same(first.labels, other.labels, first_ckpt, other_ckpt, REMEDY)
    for key, expected, actual in _differences(first, other.face):
        raise InputError(
            f"{other_ckpt} takes faces of {key} {actual}, {first_ckpt} of {key} {expected}: "
            "the networks of an ensemble must take the same faces"
        )


def require_fit(model: EmotionClassifier, info: StoreInfo, checkpoint: str, same_classes: bool = True) -> None:
    """Refuse a prepared file of other classes, where ``same_classes``, or faces than a model's; InputError."""
    if same_classes:
        require_same(model.labels, info.class_names, checkpoint, str(info.path), REMEDY)
    for key, expected, actual in _differences(model, info.face):
        raise InputError(
            f"{checkpoint} was trained on faces of {key} {expected}, {info.path} holds {actual}; "
            f"prepare it with data.{key}={expected}"
        )


def _differences(model: EmotionClassifier, face: Any) -> list[tuple[str, Any, Any]]:
    """Return in which of size and colour other faces differ from those of a model: key, the model's, the other."""
    own, other = asdict(model.face), asdict(face)
    return [(key, own[key], other[key]) for key in ("size", "color") if own[key] != other[key]]


def refuse_trained_on(
    model: EmotionClassifier, rows: np.ndarray, sources: list[str], paths: list[str], what: str, checkpoint: str
) -> None:
    """Refuse to score a model on rows, int64 hashes (N,), that it was trained on; InputError with the first of them."""
    trained = is_among(rows, model.identities["train_rows"])
    if trained.any():
        first = int(trained.argmax())
        raise InputError(
            f"{what}: {int(trained.sum()):,} of its {len(rows):,} rows are rows that {checkpoint} was trained on "
            f"(the first: {sources[first]} {paths[first]}); a score on them would mean nothing"
        )
