"""Prepared faces in the forms that other programs read: the original csv of pixel strings, and PNG files by class."""

import csv
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2

from fer.data.source import SPLITS, FaceFormat, Faces
from fer.errors import InputError
from fer.system.files import replacing, replacing_folder

#: What FER2013's csv calls the splits, in the order in which it lists them.
USAGE = {"train": "Training", "val": "PublicTest", "test": "PrivateTest"}


def write_csv(out: Path, blocks: Callable[[], Iterable[Faces]], face: FaceFormat) -> None:
    """Write ``emotion,pixels,Usage`` rows, training first, as the original fer2021.csv; renamed when complete.

    Raises:
        InputError: the faces are not grey, which this form cannot say.
    """
    if face.color != "grey":
        raise InputError("format=csv holds grey pixels only; set data.color=grey")
    with replacing(out) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["emotion", "pixels", "Usage"])
        for code, split in enumerate(SPLITS):
            for faces in blocks():
                for i in (faces.split == code).nonzero()[0]:
                    pixels = " ".join(map(str, faces.image[i].ravel().tolist()))
                    writer.writerow([int(faces.label[i]), pixels, USAGE[split]])


def write_folder(
    out: Path, blocks: Callable[[], Iterable[Faces]], class_names: tuple[str, ...], sources: tuple[str, ...]
) -> None:
    """Write each face as ``<split>/<class>/<number>_<source>.png``; the folder gets its name when it is complete."""
    with replacing_folder(out) as temporary:
        for split in SPLITS:
            for name in class_names:
                (temporary / split / name).mkdir(parents=True)
        number = 0
        for faces in blocks():
            for i, image in enumerate(faces.image):
                pixels = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
                name = f"{number:07d}_{sources[faces.source[i]]}.png"
                path = temporary / SPLITS[faces.split[i]] / class_names[faces.label[i]] / name
                # not imwrite, which says too little when the disk is full
                path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
                number += 1
