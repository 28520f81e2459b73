"""AffectNet as released: finds which release lies in a folder and gives its reader."""

import os
from collections.abc import Sequence
from pathlib import Path

from fer.data.readers.affectnet_2017 import CsvRelease
from fer.data.readers.affectnet_base import Release
from fer.data.readers.affectnet_npy import NpyRelease, is_npy_set
from fer.data.source import SPLITS, FaceFormat, PhotoLimits
from fer.data.split import check_fractions
from fer.errors import InputError
from fer.labels import CLASSES

_IMAGES = "Manually_Annotated_Images"


def affectnet_source(
    root: str | os.PathLike[str],
    face: FaceFormat,
    limits: PhotoLimits,
    class_names: Sequence[str] = CLASSES,
    val_as: tuple[str, ...] = ("val", "test"),
    val_fraction: float = 0.0,
    seed: int = 0,
    name: str = "affectnet",
) -> Release:
    """Return the Source of whichever AffectNet release lies in ``root``.

    2017: training.csv and validation.csv and the folder Manually_Annotated_Images, each in ``root`` or one folder down.
    Newer: train_set and val_set, each with images/N.jpg and annotations/N_exp.npy, or ``root`` is one of them.
    Training rows go to train, validation rows to every split of ``val_as``. With ``val_fraction`` above 0 that share
    of the training photos (all faces of a photo together, drawn by ``seed``) is val and the validation rows are test.
    Rows are recorded as coming from ``name``.

    Raises:
        InputError: no release is there, only its .rar parts are, or an argument is out of range.
    """
    check_fractions(val_fraction)
    if not val_as or not set(val_as) <= set(SPLITS):
        wrong = ", ".join(val_as) or "none"
        raise InputError(f"AffectNet's validation rows can go to {', '.join(SPLITS)}, not to {wrong}")
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"AffectNet folder {root} does not exist: give the one with training.csv or train_set")
    folders = [root, *sorted(entry for entry in root.iterdir() if entry.is_dir())]
    csvs = {
        name: next((folder / name for folder in folders if (folder / name).is_file()), None)
        for name in ("training.csv", "validation.csv")
    }
    images = next((folder / _IMAGES for folder in folders if (folder / _IMAGES).is_dir()), None)
    sets = [folder for folder in (root / "train_set", root / "val_set") if is_npy_set(folder)]
    if not sets and is_npy_set(root):
        sets = [root]
    common = (face, limits, tuple(class_names), val_as, val_fraction, seed, name)
    if any(csvs.values()) and images:
        # Unpacking into a folder named like the archive's own doubles the name.
        return CsvRelease(*common, csvs=csvs, images=images / _IMAGES if (images / _IMAGES).is_dir() else images)
    if sets:
        return NpyRelease(*common, sets=sets)
    archives = sorted(archive for folder in folders for archive in folder.glob("*.rar"))
    if archives and images is None:
        first = next((archive for archive in archives if archive.stem.endswith(("part01", "part1"))), archives[0])
        raise InputError(
            f"AffectNet in {root} is still packed: run `unrar x {first.name}` in {first.parent} to get {_IMAGES}"
        )
    if any(csvs.values()):
        raise InputError(f"AffectNet photos not found: no folder {_IMAGES} in {root} or one folder down")
    raise InputError(
        f"no AffectNet release in {root}: looked there and one folder down for training.csv, validation.csv and "
        f"{_IMAGES}, and there for train_set and val_set with images and annotations"
    )
