"""Numbers from the darknet program: probabilities, top-k, mean average precision and boxes.

Every call runs in a new `WorkFolder` under ``work``.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fer.darknet.formats.label_files import read_labels
from fer.darknet.formats.photo_folder import read_list
from fer.darknet.formats.records import ClassAP, Matches, MeanAP, TopK
from fer.darknet.formats.weights import Net
from fer.darknet.program_engine.program import Program
from fer.darknet.program_engine.work_folder import WorkFolder, work_folder
from fer.darknet.scoring.mean_ap import (
    IOU_THRESHOLD,
    THRESHOLD,
    Detections,
    Truth,
    mean_average_precision,
    photo_size,
    ratios,
    read_truth,
)
from fer.errors import InputError

# Debian's `detector valid` starts with four photos at once and crashes where the list has fewer.
_MIN_PHOTOS = 4
_PREDICTED = re.compile(r"(photos/\d+\.\w+): Predicted in ")
_PROBABILITY = re.compile(r"(\d+): (-?[\d.]+|-?nan)")

Face = tuple[int, float, tuple[float, float, float, float]]


def classify(program: Program, net: Net, names: Sequence[str], photos: Sequence[Path], work: Path) -> np.ndarray:
    """Return class probabilities (N, C) of whole photos, in their order and that of the names.

    The shorter side is resized to the net's, then the centre is cut out: by Debian's `classifier fout`, as its
    `classifier valid` prints only two probabilities, and by AlexeyAB's `classifier predict`, which does as its `valid`.

    Raises:
        InputError: a photo is missing or unreadable, or the program fails, with its own words.
    """
    with work_folder(program, net, work, [str(index) for index in range(len(names))]) as folder:
        links = folder.link(photos)
        if program.dialect == "pjreddie":
            folder.run("classifier", "fout", "valid.txt")
            rows = [line.split("\t") for line in folder.lines if line.count("\t") == len(names)]
        else:
            text = "".join(f"{link}\n" for link in links)
            folder.run("classifier", "predict", "-t", str(len(names)), stdin=text)
            rows = list(_predicted(folder.lines, len(names)))
        folder.require([row[0] for row in rows] == links, f"{len(rows):,} of {len(links):,} photos came back")
    try:
        return np.array([row[1:] for row in rows], float).reshape(-1, len(names))
    except ValueError as error:
        raise InputError(f"{program.path}: printed a probability that is no number: {error}") from error


def _predicted(lines: Iterable[str], classes: int) -> Iterator[list[str]]:
    row: list[str] = []
    for line in lines:
        if match := _PREDICTED.match(line):
            row = [match[1], *["nan"] * classes]
            yield row
        elif row and (match := _PROBABILITY.fullmatch(line.strip())):
            row[1 + int(match[1])] = match[2]


def classifier_valid(program: Program, net: Net, names: Sequence[str], list_file: Path, work: Path) -> TopK:
    """Return top-1 and top-k accuracy as the program's own `classifier valid` prints them, k = min(5, classes).

    ``names`` are the labels, of which each path in the list holds exactly one.

    Raises:
        InputError: as `classify`.
    """
    photos = read_list(list_file)
    with work_folder(program, net, work, names) as folder:
        for photo in photos:
            if not photo.is_file():
                raise InputError(f"{photo}, in {list_file}: no such file; make the Darknet folder anew with prepare.py")
        folder.write("valid.txt", photos)
        folder.run("classifier", "valid")
        scores = [record for record in folder.records if isinstance(record, TopK)]
        folder.require(len(scores) == len(photos), f"it scored {len(scores):,} of {len(photos):,} photos")
    return scores[-1]


def detector_map(
    program: Program, net: Net, names: Sequence[str], list_file: Path, work: Path, threshold: float = THRESHOLD,
    iou_threshold: float = IOU_THRESHOLD,
) -> dict[str, Any]:  # fmt: skip
    """Return mAP and what goes with it, as `mean_average_precision` does, with ``photos`` and ``map_by``.

    ``map_by`` says whether the program's `detector map` printed the numbers, rounded to two decimals but for mAP and
    the counts (then a class has no ``curve``, and there is no ``by_confidence``), or they are computed here from the
    boxes of its `detector valid`.

    Raises:
        InputError: as `classify`, or labels that can't be read.
    """
    photos = read_list(list_file)
    truth, sizes = read_truth(photos, len(names))
    with work_folder(program, net, work, [str(index) for index in range(len(names))]) as folder:
        if program.has_map:
            for photo, link in zip(photos, folder.link(photos), strict=True):
                # not a link: the program reads neither a byte order mark nor 1.0 as a class
                faces = read_labels(photo.with_suffix(".txt"), len(names)).tolist()
                lines = [f"{int(label)} {' '.join(map(repr, box))}" for label, *box in faces]
                folder.write(str(Path(link).with_suffix(".txt")), lines)
            folder.run("detector", "map", "-thresh", str(threshold), "-iou_thresh", str(iou_threshold))
            scores = _printed_map(folder, truth, names, threshold, iou_threshold)
        else:
            found = _valid(folder, photos, sizes, len(names))
            scores = mean_average_precision(found, truth, names, threshold, iou_threshold)
    printed, computed = f"printed by {program.dialect}'s detector map", "computed from the boxes of detector valid"
    by = printed if program.has_map else computed
    return scores | {"photos": len(photos), "map_by": by}


def _printed_map(
    folder: WorkFolder, truth: Truth, names: Sequence[str], threshold: float, iou_threshold: float
) -> dict[str, Any]:
    classes = {record.index: record for record in folder.records if isinstance(record, ClassAP)}
    counts = [record for record in folder.records if isinstance(record, Matches)]
    mean = [record for record in folder.records if isinstance(record, MeanAP)]
    if folder.no_detections:
        return mean_average_precision(_nothing(), truth, names, threshold, iou_threshold)
    complete = mean and counts and sorted(classes) == list(range(len(names))) and mean[-1].value is not None
    folder.require(bool(complete), "it printed no mAP")
    tp, fp, fn = counts[-1].tp, counts[-1].fp, counts[-1].fn
    folder.require(tp + fn == len(truth.label), f"it found {tp + fn:,} of {len(truth.label):,} labels")
    rows = [
        {"name": name, "ap": classes[i].ap, "tp": classes[i].tp, "fp": classes[i].fp}
        | {"truths": int((truth.label == i).sum())}
        for i, name in enumerate(names)
    ]
    return {
        "map": mean[-1].value, "iou_threshold": iou_threshold, **ratios(tp, fp, fn), "iou": counts[-1].iou,
        "threshold": threshold, "faces": len(truth.label), "per_class": rows,
    }  # fmt: skip


def detect(
    program: Program, net: Net, names: Sequence[str], photos: Sequence[Path], threshold: float, work: Path
) -> list[list[Face]]:
    """Return for each photo its faces by falling confidence: class index, confidence, (x, y, width, height) in pixels.

    Only confidences over ``threshold``; Debian's `detector valid` reports none under 0.005. Of several classes that the
    program gives one box, the surest stands.

    Raises:
        InputError: as `classify`.
    """
    sizes = [photo_size(photo) for photo in photos]
    with work_folder(program, net, work, [str(index) for index in range(len(names))]) as folder:
        if program.dialect == "pjreddie":
            detections = _valid(folder, photos, sizes, len(names))
        else:
            links = folder.link(photos)
            text = "".join(f"{link}\n" for link in links)
            arguments = ("-thresh", str(threshold), "-dont_show", "-ext_output", "-out", "result.json")
            folder.run("detector", "test", *arguments, stdin=text)
            detections = _read_json(folder, links, sizes)
    best: list[dict[tuple[float, ...], Face]] = [{} for _ in photos]
    for index in np.argsort(-detections.confidence, kind="stable"):
        box = tuple(float(value) for value in detections.box[index])
        if detections.confidence[index] > threshold:
            face = (int(detections.label[index]), float(detections.confidence[index]), box)
            best[detections.photo[index]].setdefault(box, face)
    return [list(faces.values()) for faces in best]


def _valid(folder: WorkFolder, photos: Sequence[Path], sizes: Sequence[tuple[int, int]], classes: int) -> Detections:
    more = max(0, _MIN_PHOTOS - len(photos))
    links = folder.link([*photos, *list(photos[:1]) * more])
    (folder.path / "results").mkdir()
    folder.run("detector", "valid")
    ended = any("Total Detection Time" in line for line in folder.lines)
    folder.require(ended, "it ended before the last photo")
    ids = {Path(link).stem: size for link, size in zip(links, [*sizes, *list(sizes[:1]) * more], strict=True)}
    detections = read_valid(folder.path / "results", "comp4_det_test_", ids, classes)
    ours = detections.photo < len(photos)
    return Detections(detections.photo[ours], detections.label[ours], detections.confidence[ours], detections.box[ours])


def _read_json(folder: WorkFolder, links: Sequence[str], sizes: Sequence[tuple[int, int]]) -> Detections:
    try:
        frames = json.loads((folder.path / "result.json").read_text())
        names = [frame["filename"] for frame in frames]
    except (OSError, ValueError, KeyError, TypeError):
        names = []
    folder.require(names == list(links), f"{len(names):,} of {len(links):,} photos came back")
    rows = [(number, face) for number, frame in enumerate(frames) for face in frame["objects"]]
    keys = ("center_x", "center_y", "width", "height")
    relative = np.array([[face["relative_coordinates"][key] for key in keys] for _, face in rows], float).reshape(-1, 4)
    photo = np.array([number for number, _ in rows], int)
    size, extent = np.array(sizes, float).reshape(-1, 2)[photo], relative[:, 2:]
    corner = relative[:, :2] - extent / 2
    confidence = np.array([face["confidence"] for _, face in rows], float)
    label = np.array([face["class_id"] for _, face in rows], int)
    return Detections(photo, label, confidence, np.concatenate([corner * size, extent * size], axis=1))


def _nothing() -> Detections:
    return Detections(np.zeros(0, int), np.zeros(0, int), np.zeros(0), np.zeros((0, 4)))


def read_valid(folder: Path, stem: str, sizes: Mapping[str, tuple[int, int]], classes: int) -> Detections:
    """Return the boxes that Debian's `detector valid` wrote, a file ``STEM0.txt``, ``STEM1.txt`` ... a class.

    A line is ``id confidence left upper right lower``, in pixels counted from 1 and clipped to 1..width and 1..height;
    ``sizes`` has width and height by id, in the order of the photos. A box that was clipped at the right or the lower
    edge is taken to reach that edge.

    Raises:
        InputError: a file is missing, or a line is not such a line or names no photo.
    """
    index = {name: number for number, name in enumerate(sizes)}
    photo, label, confidence, corners = [], [], [], []
    for number in range(classes):
        path = folder / f"{stem}{number}.txt"
        if not path.is_file():
            raise InputError(f"{path}: the darknet program did not write it; run it again, or see its log")
        for line_number, line in enumerate(path.read_text().splitlines(), 1):
            try:
                name, score, *edges = line.split()
                left, upper, right, lower = map(float, edges)
                photo.append(index[name])
                confidence.append(float(score))
            except (ValueError, KeyError) as error:
                raise InputError(
                    f"{path}, line {line_number}: {line!r} is no detection in one of the photos"
                ) from error
            label.append(number)
            corners.append((left, upper, right, lower))
    at = np.array(photo, int)
    size = np.array(list(sizes.values()), float).reshape(-1, 2)[at]
    corner = np.array(corners, float).reshape(-1, 4)
    upper_left, lower_right = corner[:, :2] - 1, corner[:, 2:]
    lower_right = np.where(lower_right < size, lower_right - 1, size)
    box = np.concatenate([upper_left, (lower_right - upper_left).clip(0)], axis=1)
    return Detections(at, np.array(label, int), np.array(confidence, float), box)
