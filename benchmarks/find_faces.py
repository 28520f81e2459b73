"""How many faces are found in photos, how many boxes hold none, and how many faces are named right.

    python benchmarks/find_faces.py                                       two photos that come with scikit-image
    python benchmarks/find_faces.py PHOTOS --yunet FILE.onnx --draft      write PHOTOS.csv, to be corrected by eye
    python benchmarks/find_faces.py PHOTOS --yunet FILE.onnx --fer python-with-the-package-fer --draw OUT
    python benchmarks/find_faces.py PHOTOS --detector FILE.weights --least 0.25 --least 0.4

PHOTOS is a folder; PHOTOS.csv beside it (or --truth FILE) says where its faces are: file,x,y,width,height,label with a
row a face, the box a square from brow to chin, the label empty where unknown; a photo without a face has a row without
numbers. ``--draft`` writes what YuNet finds, and the label where the file's name is a class.

The kinds of photos are portraits (one face), groups (more), none, and tilted: all with faces, turned by --tilt degrees
to either side, the corners black. A face is found by a box whose intersection over union with its own is at least 0.35;
every other box is false, on an eye as well as on a bush. The faces are named by ``fer2013_vgg9``, those of the package
`fer` by itself, and so are those of a Darknet detector (--detector, its .cfg and .names beside it), found where their
confidence is over each --least. Right is counted among faces that have a label, tilted or not. Seconds are those of the
CPU, for reading, searching and naming on one thread, the best of --runs.
"""

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fer import Predictor
from fer.data.boxes import Box, iou
from fer.data.photos import read_photo
from fer.data.source import PhotoLimits
from fer.labels import canonical
from fer.prediction.detectors import open_detector
from fer.prediction.drawing import draw_faces

CKPT = "fer2013_vgg9"
#: Least overlap of a box that finds a face.
FOUND = 0.35
KINDS = ("portraits", "groups", "tilted", "none")

#: The face in scikit-image's photo of an astronaut, by eye, as in tests/prediction/test_detectors.py.
ASTRONAUT, FACELESS = ("astronaut.png", (166.0, 62.0, 116.0, 116.0), "Happy"), "coffee.png"

#: Run by the interpreter that has the package `fer`: a list of files in, boxes, labels and seconds out.
_FER = """
import json, sys, time, cv2
cv2.setNumThreads(1)
import fer
detector = getattr(fer, "FER", None)
if detector is None:
    from fer.fer import FER as detector
detector, answers = detector(), []
files, runs = json.load(sys.stdin)
detector.detect_emotions(cv2.imread(files[0]))
for file in files:
    best = 1e9
    for _ in range(runs):
        start = time.process_time()
        found = detector.detect_emotions(cv2.imread(file))
        best = min(best, time.process_time() - start)
    faces = [[[float(v) for v in face["box"]], max(face["emotions"], key=face["emotions"].get)] for face in found]
    answers.append([best, faces])
print("ANSWERS" + json.dumps(answers))
"""


@dataclass(slots=True)
class Photo:
    """A photo's file, its kind, and its faces as boxes and labels ("" where unknown)."""

    file: Path
    kind: str
    faces: list[tuple[Box, str]]


@dataclass(slots=True)
class Score:
    """Counts of one program on one kind of photo."""

    photos: int = 0
    faces: int = 0
    found: int = 0
    false: int = 0
    labelled: int = 0
    right: int = 0
    seconds: float = 0.0
    false_in: list[str] = field(default_factory=list)
    missed_in: list[str] = field(default_factory=list)


#: Boxes and labels of a photo's faces, and the seconds that finding and naming them took.
Answer = tuple[float, list[tuple[Box, str]]]


def read_truth(file: Path, folder: Path) -> list[Photo]:
    """Return the photos that a csv describes."""
    faces: dict[str, list[tuple[Box, str]]] = defaultdict(list)
    with file.open(newline="") as rows:
        for row in csv.DictReader(rows):
            box = [row[key] for key in ("x", "y", "width", "height")]
            faces[row["file"]] += [(tuple(map(float, box)), row["label"])] if all(box) else []
    kinds = {0: "none", 1: "portraits"}
    return [Photo(folder / name, kinds.get(len(boxes), "groups"), boxes) for name, boxes in faces.items()]


def draft(folder: Path, yunet: str, file: Path) -> None:
    """Write what YuNet finds as a truth to be corrected."""
    detector = open_detector("yunet", yunet, min_size=16)
    with file.open("w", newline="") as out:
        table = csv.writer(out)
        table.writerow(("file", "x", "y", "width", "height", "label"))
        for path in sorted(folder.iterdir()):
            photo = read_photo(str(path), "rgb", PhotoLimits())
            if isinstance(photo, str):
                continue
            found = detector(photo)
            for face in found:
                table.writerow((path.name, *(round(value, 1) for value in face.box), canonical(path.stem) or ""))
            if not found:
                table.writerow((path.name, "", "", "", "", ""))
    print(f"{file}: look at each photo and correct it")


def skimage_photos(folder: Path) -> list[Photo]:
    """Return the two photos that need no data, copied into a folder."""
    import skimage.data

    name, box, label = ASTRONAUT
    photos = [Photo(folder / name, "portraits", [(box, label)]), Photo(folder / FACELESS, "none", [])]
    for photo in photos:
        picture = getattr(skimage.data, photo.file.stem)()
        cv2.imwrite(str(photo.file), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    return photos


def tilted(photos: list[Photo], degrees: float, folder: Path) -> list[Photo]:
    """Return the photos with faces turned to both sides, written into a folder, with their boxes moved."""
    turned = []
    for photo in photos:
        picture = cv2.imread(str(photo.file))
        height, width = picture.shape[:2]
        for angle in (-degrees, degrees) if photo.faces else ():
            matrix = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0)
            across = abs(matrix[0, 0]) * width + abs(matrix[0, 1]) * height
            down = abs(matrix[0, 1]) * width + abs(matrix[0, 0]) * height
            matrix[:, 2] += (across - width) / 2, (down - height) / 2
            file = folder / f"{photo.file.stem}_{angle:+.0f}.png"
            cv2.imwrite(str(file), cv2.warpAffine(picture, matrix, (round(across), round(down))))
            faces = []
            for (x, y, w, h), label in photo.faces:
                cx, cy = matrix @ (x + w / 2, y + h / 2, 1)
                faces.append(((cx - w / 2, cy - h / 2, w, h), label))
            turned.append(Photo(file, "tilted", faces))
    return turned


def ours(photos: list[Photo], runs: int, ckpt: str | Path = CKPT, **options: Any) -> list[Answer]:
    """Return what our predictor finds and names; ``options`` are those of its ``load``."""
    predictor = Predictor.load(ckpt, device="cpu", **options)
    predictor(photos[0].file)
    answers = []
    for photo in photos:
        best = float("inf")
        for _ in range(runs):
            start = time.process_time()
            found = predictor(photo.file)
            best = min(best, time.process_time() - start)
        answers.append((best, [(face.box, face.label or "") for face in found]))
    return answers


def package_fer(photos: list[Photo], python: str, runs: int) -> list[Answer]:
    """Return what the package `fer` finds and names, in the interpreter that has it."""
    given = json.dumps([[str(photo.file.absolute()) for photo in photos], runs])
    with tempfile.TemporaryDirectory() as elsewhere:  # not here, where `fer` is this project
        done = subprocess.run([python, "-c", _FER], input=given, capture_output=True, text=True, cwd=elsewhere)
    if "ANSWERS" not in done.stdout:
        sys.exit(f"{python}: {done.stderr.strip().splitlines()[-1]}")
    answers = json.loads(done.stdout.rpartition("ANSWERS")[2])
    return [(s, [(tuple(box), canonical(label) or label) for box, label in faces]) for s, faces in answers]


def scores(photos: list[Photo], answers: list[Answer]) -> dict[str, Score]:
    """Return the counts by kind of photo."""
    table = {kind: Score() for kind in KINDS}
    for photo, (seconds, found) in zip(photos, answers, strict=True):
        score = table[photo.kind]
        score.photos, score.seconds = score.photos + 1, score.seconds + seconds
        left = list(found)
        for box, label in photo.faces:
            score.faces += 1
            score.labelled += bool(label)
            overlap = [float(iou(box, other)) for other, _ in left]
            if overlap and max(overlap) >= FOUND:
                _, named = left.pop(int(np.argmax(overlap)))
                score.found += 1
                score.right += bool(label) and named == label
            else:
                score.missed_in.append(photo.file.name)
        score.false += len(left)
        score.false_in += [photo.file.name] * len(left)
    return table


def draw(photos: list[Photo], answers: list[Answer], folder: Path) -> None:
    """Write the photos with the boxes that were found."""
    folder.mkdir(parents=True, exist_ok=True)
    for photo, (_, found) in zip(photos, answers, strict=True):
        picture = draw_faces(cv2.imread(str(photo.file)), [box for box, _ in found], [label for _, label in found])
        cv2.imwrite(str(folder / f"{photo.file.stem}.jpg"), picture)


def main() -> None:
    """Run the detectors and print a table, and with --names which photos have misses and false boxes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="?", type=Path)
    parser.add_argument("--truth", type=Path)
    parser.add_argument("--yunet", metavar="FILE.onnx")
    parser.add_argument("--fer", metavar="PYTHON")
    parser.add_argument("--detector", metavar="FILE.weights", type=Path, action="append", default=[])
    parser.add_argument("--least", type=float, action="append", help="confidences of --detector; without: 0.25")
    parser.add_argument("--draft", action="store_true")
    parser.add_argument("--draw", type=Path)
    parser.add_argument("--names", action="store_true")
    parser.add_argument("--tilt", type=float, default=30.0)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    cv2.setNumThreads(1)
    truth = options.truth or (options.photos and options.photos.with_suffix(".csv"))
    if options.draft:
        return draft(options.photos, options.yunet, truth)
    with tempfile.TemporaryDirectory() as made:
        photos = read_truth(truth, options.photos) if options.photos else skimage_photos(Path(made))
        photos += tilted(photos, options.tilt, Path(made))
        programs = {"cascade": lambda: ours(photos, options.runs, faces="haar")}
        if options.yunet:
            programs["YuNet"] = lambda: ours(photos, options.runs, faces="yunet", faces_model=options.yunet)
        for file in options.detector:
            for least in options.least or [0.25]:
                name = f"{file.stem} over {least:g}"
                programs[name] = partial(ours, photos, options.runs, file, min_confidence=least)
        if options.fer:
            programs["package fer"] = lambda: package_fer(photos, options.fer, options.runs)
        print("| faces by | kind | photos | faces there | found | false | named right | CPU seconds |")
        print("|---|---|---|---|---|---|---|---|")
        for program, run in programs.items():
            answers = run()
            for kind, score in scores(photos, answers).items():
                right = f"{score.right} of {score.labelled}" if score.labelled else "-"
                counts = f"{score.photos} | {score.faces} | {score.found} | {score.false} | {right}"
                print(f"| {program} | {kind} | {counts} | {score.seconds:.2f} |")
                if options.names and score.photos:
                    print("missed:", *score.missed_in, "\nfalse:", *score.false_in)
            if options.draw:
                draw(photos, answers, options.draw / program)


if __name__ == "__main__":
    main()
