"""Expressions in any photos, named by a Darknet net: rows in a csv and, from a detector, drawn boxes."""

import csv
import glob
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from fer.darknet.program import Program, find_program, require_support
from fer.darknet.scores import classify, detect
from fer.darknet.weights import Net, open_net
from fer.data.folder import IMAGE_SUFFIXES
from fer.data.photos import PhotoLimits, read_photo
from fer.errors import InputError
from fer.labels import canonical

_COLUMNS = ("file", "x", "y", "width", "height", "label", "confidence", "error")


def predict(keys: dict[str, Any], options: dict[str, Any]) -> int:
    """Name the expressions in ``keys["source"]`` with the weights ``keys["ckpt"]``; returns how many photos failed.

    Writes predictions.csv under ``keys["out"]``: a row a face of a detector (box in pixels of the photo), a row a photo
    of a classifier, which takes the whole photo as the face; a photo that can't be read gets a row with the reason, one
    without a face a row without a label. A detector's photos are drawn into ``photos/`` beside it.

    Raises:
        InputError: no photo, or weights, cfg, names or program that are missing or do not fit.
    """
    net = open_net(Path(keys["ckpt"]), *(Path(options[key]) if options[key] else None for key in ("cfg", "names")))
    program = find_program(options["binary"])
    require_support(program, net.sections, net.task, action="valid")
    files = find_photos(keys["source"])
    if net.task == "classifier":
        print("note: a classifier takes the whole photo as the face")
    out = Path(keys["out"])
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fer-darknet-") as folder:
        rows = _predict(program, net, files, keys["min_confidence"], Path(folder), out)
    temporary = out / "predictions.csv.tmp"
    with open(temporary, "w", newline="", errors="surrogateescape") as file:
        writer = csv.DictWriter(file, _COLUMNS, restval="")
        writer.writeheader()
        writer.writerows(rows)
    os.replace(temporary, out / "predictions.csv")
    failed = sum(1 for row in rows if row.get("error"))
    named = sum(1 for row in rows if row.get("label"))
    print(f"{len(files):,} photos, {named:,} faces named, {failed:,} photos failed: {out / 'predictions.csv'}")
    return failed


def find_photos(source: str) -> list[str]:
    """Return the photo files that a path, a folder (with all below it) or a glob means, sorted.

    Raises:
        InputError: there is none.
    """
    if os.path.isdir(source):
        found = [os.path.join(folder, name) for folder, _, names in os.walk(source) for name in names]
        found = [path for path in found if path.lower().endswith(IMAGE_SUFFIXES)]
    else:
        found = [source] if os.path.isfile(source) else glob.glob(source, recursive=True)
    if not found:
        raise InputError(f"source={source}: no such photo, folder with photos, or glob that matches any")
    return sorted(found)


def _predict(
    program: Program, net: Net, files: Sequence[str], threshold: float, work: Path, out: Path
) -> list[dict[str, Any]]:
    limits, errors, copies = PhotoLimits(), {}, {}
    # emotion.names says Anger where every report says Angry
    names = [canonical(name) or name for name in net.names]
    (work / "in").mkdir()
    for number, file in enumerate(tqdm(files, desc="read", unit="photo", leave=False)):
        photo = read_photo(file, "rgb", limits)
        if isinstance(photo, str):
            errors[file] = photo
            continue
        # a numbered PNG, so that every format and EXIF orientation is read alike, whatever the path holds
        copies[file] = work / "in" / f"{number:07d}.png"
        cv2.imwrite(str(copies[file]), photo[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
    found: dict[str, list[dict[str, Any]]] = {file: [{"file": file, "error": why}] for file, why in errors.items()}
    photos = list(copies.values())
    if photos and net.task == "classifier":
        for file, row in zip(copies, classify(program, net, net.names, photos, work), strict=True):
            best = int(np.argmax(row))
            label = names[best] if row[best] >= threshold else ""
            found[file] = [{"file": file, "label": label, "confidence": f"{row[best]:.4f}"}]
    elif photos:
        for file, faces in zip(copies, detect(program, net, net.names, photos, threshold, work), strict=True):
            found[file] = [
                {"file": file, "label": names[index], "confidence": f"{confidence:.4f}"}
                | dict(zip(("x", "y", "width", "height"), (f"{value:.1f}" for value in box), strict=True))
                for index, confidence, box in faces
            ] or [{"file": file}]
            _draw(copies[file], found[file], out / "photos" / f"{copies[file].stem}_{Path(file).stem}.jpg")
    return [row for file in files for row in found[file]]


def _draw(photo: Path, rows: Sequence[dict[str, Any]], target: Path) -> None:
    target.parent.mkdir(exist_ok=True)
    image = cv2.imread(str(photo))
    height, width = image.shape[:2]
    line = max(1, round(min(height, width) / 200))
    scale = max(0.4, min(height, width) / 700)
    for row in rows:
        if not row.get("label"):
            continue
        x, y, w, h = (round(float(row[key])) for key in ("x", "y", "width", "height"))
        cv2.rectangle(image, (x, y), (x + w, y + h), (0, 200, 0), line)
        text = f"{row['label']} {float(row['confidence']):.2f}"
        (tw, th), below = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, line)
        left = min(max(0, x), max(0, width - tw))
        base = y - below if y - th - 2 * below >= 0 else min(height - below, y + th + below)
        cv2.rectangle(image, (left, base - th - below), (left + tw, base + below), (0, 200, 0), -1)
        cv2.putText(image, text, (left, base), cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), line, cv2.LINE_AA)
    cv2.imwrite(str(target), image)
