"""Prepared faces in the forms that other programs read: the seed's csv of pixel strings, and PNG files by class."""

import csv
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2

from fer.data.source import SPLITS, FaceFormat, Faces
from fer.errors import InputError

#: What the seed's csv calls the splits, in the order in which it lists them.
USAGE = {"train": "Training", "val": "PublicTest", "test": "PrivateTest"}


def write_csv(out: Path, blocks: Callable[[], Iterable[Faces]], face: FaceFormat) -> None:
    """Write ``emotion,pixels,Usage`` rows, training first, as the seed's fer2021.csv; renamed when complete.

    Raises:
        InputError: the faces are not grey, which this form cannot say.
    """
    if face.color != "grey":
        raise InputError("format=csv holds grey pixels only; set data.color=grey")
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(out.name + ".tmp")
    with open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["emotion", "pixels", "Usage"])
        for code, split in enumerate(SPLITS):
            for faces in blocks():
                for i in (faces.split == code).nonzero()[0]:
                    pixels = " ".join(map(str, faces.image[i].ravel().tolist()))
                    writer.writerow([int(faces.label[i]), pixels, USAGE[split]])
    os.replace(temporary, out)


def require_new_folder(out: Path) -> None:
    """Refuse a folder that already holds something, before any work is done for it."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out}: already exists and is not an empty folder; give another out=FOLDER")


def write_folder(
    out: Path, blocks: Callable[[], Iterable[Faces]], class_names: tuple[str, ...], sources: tuple[str, ...]
) -> None:
    """Write each face as ``<split>/<class>/<number>_<source>.png``; the folder gets its name when it is complete."""
    require_new_folder(out)
    temporary = out.with_name(out.name + ".tmp")
    for split in SPLITS:
        for name in class_names:
            (temporary / split / name).mkdir(parents=True, exist_ok=True)
    number = 0
    for faces in blocks():
        for i, image in enumerate(faces.image):
            pixels = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
            name = f"{number:07d}_{sources[faces.source[i]]}.png"
            path = temporary / SPLITS[faces.split[i]] / class_names[faces.label[i]] / name
            if not cv2.imwrite(str(path), pixels):
                raise OSError(f"{path}: could not be written")
            number += 1
    if out.exists():
        out.rmdir()
    os.replace(temporary, out)
