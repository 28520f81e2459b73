"""Expressions in any photos, named by a Darknet net: rows in a csv and, from a detector, drawn boxes."""

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from fer.darknet.formats.weights import Net, open_configured_net
from fer.darknet.program_engine.program import Program, find_program, require_support
from fer.darknet.program_engine.scores import Face, classify, detect
from fer.data.photos import read_photo
from fer.data.source import PhotoLimits
from fer.labels import canonical, colors
from fer.prediction.drawing import draw_faces, hide_faces
from fer.prediction.sources import Medium, counted, find_media
from fer.prediction.table import Rows, out_folder
from fer.system.files import claiming, replacing
from fer.system.words import amount

#: What is less certain is left out, where the user gives no threshold.
_THRESHOLD = 0.25
_VIDEO = "a video: the darknet program is given photos only; darknet.engine=torch takes it"


def predict(keys: dict[str, Any], options: dict[str, Any]) -> int:
    """Name the expressions in the photos of ``keys["source"]`` with a .weights file; returns how many files failed.

    Writes the rows of `fer.prediction.table.Rows` under ``keys["out"]``: a row a face of a detector (box in pixels of
    the photo), a row a photo of a classifier, which takes the whole photo as the face; a file that can't be read gets a
    row with the reason, a photo without a face a row without a label. A detector's photos are drawn into ``photos/``.

    Raises:
        InputError: no photo, or weights, cfg, names or program that are missing or do not fit.
    """
    net = open_configured_net(keys["ckpt"], options)
    program = find_program(options["binary"])
    require_support(program, net.sections, net.task, action="valid")
    out, skipped = out_folder(keys, "program")
    left_aside: Counter[str] = Counter()
    media = find_media(keys["source"], skipped, left_aside)
    if net.task == "classifier":
        print("note: a classifier takes the whole photo as the face")
    faceless = 0
    with claiming(out), Rows(out) as rows, tempfile.TemporaryDirectory(prefix="fer-darknet-") as folder:
        for row in _predict(program, net, media, keys, Path(folder), out):
            faceless += row.keys() == {"file"}
            rows.write(**row)
    aside = f", {left_aside.total():,} left aside ({counted(left_aside)})" if left_aside else ""
    print(
        f"{amount(len(media), 'photo')}, {amount(rows.named, 'face')} named, {faceless:,} without a face, "
        f"{amount(rows.failed, 'photo')} failed"
        f"{aside}: {out / 'predictions.csv'}"
    )
    return rows.failed + (faceless if keys["strict"] else 0)


def _predict(
    program: Program, net: Net, media: Sequence[Medium], keys: dict[str, Any], work: Path, out: Path
) -> list[dict[str, Any]]:
    limits, errors, copies = PhotoLimits(), {}, {}
    threshold = _THRESHOLD if keys["min_confidence"] is None else keys["min_confidence"]
    # emotion.names says Anger where every report says Angry
    names = [canonical(name) or name for name in net.names]
    (work / "in").mkdir()
    for number, medium in enumerate(tqdm(media, desc="read", unit="photo", leave=False)):
        error = medium.error or ("" if medium.kind == "photo" else _VIDEO)
        photo = error or read_photo(medium.path, "rgb", limits)
        if isinstance(photo, str):
            errors[medium.path] = photo
            continue
        # a numbered PNG, so that every format and EXIF orientation is read alike, whatever the path holds
        copies[medium.path] = work / "in" / f"{number:07d}.png"
        cv2.imwrite(str(copies[medium.path]), photo[:, :, ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
    rows: dict[str, list[dict[str, Any]]] = {file: [{"file": file, "error": why}] for file, why in errors.items()}
    photos = list(copies.values())
    if photos and net.task == "classifier":
        for file, row in zip(copies, classify(program, net, net.names, photos, work), strict=True):
            best = int(np.argmax(row))
            label = names[best] if row[best] >= threshold else None
            rows[file] = [{"file": file, "label": label, "confidence": round(float(row[best]), 4)}]
    elif photos:
        for file, faces in zip(copies, detect(program, net, net.names, photos, threshold, work), strict=True):
            rows[file] = [
                {"file": file, "label": names[index], "confidence": round(confidence, 4)}
                | dict(zip(("x", "y", "width", "height"), (round(value, 1) for value in box), strict=True))
                for index, confidence, box in faces
            ] or [{"file": file}]
            if keys["draw"]:
                target = out / "photos" / f"{copies[file].stem}_{Path(file).stem}.jpg"
                _draw(copies[file], faces, names, keys["anonymize"], target)
    return [row for medium in media for row in rows[medium.path]]


def _draw(photo: Path, faces: Sequence[Face], names: Sequence[str], anonymize: bool, target: Path) -> None:
    image: np.ndarray | None = cv2.imread(str(photo))
    assert image is not None  # written by `_predict`
    boxes = [box for _, _, box in faces]
    if anonymize:
        image = hide_faces(image, boxes)
    labels, palette = [f"{names[index]} {confidence:.2f}" for index, confidence, _ in faces], colors(names)
    image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    drawn = draw_faces(image, boxes, labels, [palette[names[index]] for index, _, _ in faces])
    with replacing(target, sync=False) as temporary:
        # not imwrite, which says too little when the disk is full
        temporary.write_bytes(cv2.imencode(target.suffix, cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))[1].tobytes())
