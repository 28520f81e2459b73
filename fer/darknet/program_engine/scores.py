"""Numbers from the darknet program: probabilities, top-k, mean average precision and boxes.

Every call runs in a new folder under ``work``, where links with short, numbered names stand for the photos: the program
deletes blanks from paths, cuts those it reads from standard input at 256 bytes, and knows a photo of `detector valid`
by its name only. The program's exit code is never trusted: it exits with 0 after most failures and takes a random
picture for a photo that it can't read.
"""

import json
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fer.darknet.formats.cfg import layers, render
from fer.darknet.formats.weights import Net, whole_layers
from fer.darknet.program_engine.log import ClassAP, Complaint, Loaded, Matches, MeanAP, TopK, parse_line
from fer.darknet.program_engine.process import explain, run
from fer.darknet.program_engine.program import Program
from fer.darknet.scoring.mean_ap import (
    Detections,
    Truth,
    mean_average_precision,
    ratios,
    read_truth,
    read_valid,
    size_of,
)
from fer.errors import InputError

#: A class's precision, recall and counts are of the detections with more confidence: `detector map`'s own default.
THRESHOLD = 0.25

# Debian's `detector valid` starts with four photos at once and crashes where the list has fewer.
_LEAST_PHOTOS = 4
_LINK = re.compile(r"photos/(\d{7})\.\w+")
_PREDICTED = re.compile(r"(photos/\d+\.\w+): Predicted in ")
_PROBABILITY = re.compile(r"(\d+): (-?[\d.]+|-?nan)")
# An option that a dialect lacks, which `require_support` has judged, and the letters that `detector test` draws with.
_HARMLESS = re.compile(r"Unused field|data/labels/\d+_\d\.png")
# Then AlexeyAB's `detector map` reads before the start of an empty table: it prints "inf" and may abort.
_FOUND_NOTHING = re.compile(r"\s*detections_count = 0,")

Face = tuple[int, float, tuple[float, float, float, float]]


def classify(program: Program, net: Net, names: Sequence[str], photos: Sequence[Path], work: Path) -> np.ndarray:
    """Return class probabilities (N, C) of whole photos, in their order and that of the names.

    The shorter side is resized to the net's, then the centre is cut out: by Debian's `classifier fout`, as its
    `classifier valid` prints only two probabilities, and by AlexeyAB's `classifier predict`, which does as its `valid`.

    Raises:
        InputError: a photo is missing or unreadable, or the program fails, with its own words.
    """
    with _folder(program, net, work, [str(index) for index in range(len(names))]) as folder:
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
        if found := _PREDICTED.match(line):
            row = [found[1], *["nan"] * classes]
            yield row
        elif row and (found := _PROBABILITY.fullmatch(line.strip())):
            row[1 + int(found[1])] = found[2]


def classifier_valid(program: Program, net: Net, names: Sequence[str], list_file: Path, work: Path) -> TopK:
    """Return top-1 and top-k accuracy as the program's own `classifier valid` prints them, k = min(5, classes).

    ``names`` are the labels, of which each path in the list holds exactly one.

    Raises:
        InputError: as `classify`.
    """
    photos = read_list(list_file)
    with _folder(program, net, work, names) as folder:
        for photo in photos:
            if not photo.is_file():
                raise InputError(f"{photo}, in {list_file}: no such file; make the Darknet folder anew with prepare.py")
        folder.write("valid.txt", photos)
        folder.run("classifier", "valid")
        found = [record for record in folder.records if isinstance(record, TopK)]
        folder.require(len(found) == len(photos), f"it scored {len(found):,} of {len(photos):,} photos")
    return found[-1]


def detector_map(program: Program, net: Net, names: Sequence[str], list_file: Path, work: Path) -> dict[str, Any]:
    """Return mAP@0.50 and what goes with it, as `mean_average_precision` does, with ``photos`` and ``map_by``.

    ``map_by`` says whether the program's `detector map` printed the numbers, rounded to two decimals but for mAP and
    the counts (then a class has no ``curve``), or they are computed here from the boxes of its `detector valid`.

    Raises:
        InputError: as `classify`, or labels that can't be read.
    """
    photos = read_list(list_file)
    truth, sizes = read_truth(photos, len(names))
    with _folder(program, net, work, [str(index) for index in range(len(names))]) as folder:
        if program.has_map:
            for photo, link in zip(photos, folder.link(photos), strict=True):
                os.symlink(photo.with_suffix(".txt").absolute(), (folder.path / link).with_suffix(".txt"))
            folder.run("detector", "map", "-thresh", str(THRESHOLD))
            scores = _printed_map(folder, truth, names)
        else:
            scores = mean_average_precision(_valid(folder, photos, sizes, len(names)), truth, names, THRESHOLD)
    printed, computed = f"printed by {program.dialect}'s detector map", "computed from the boxes of detector valid"
    by = printed if program.has_map else computed
    return scores | {"photos": len(photos), "map_by": by}


def _printed_map(folder: "_Folder", truth: Truth, names: Sequence[str]) -> dict[str, Any]:
    classes = {record.index: record for record in folder.records if isinstance(record, ClassAP)}
    counts = [record for record in folder.records if isinstance(record, Matches)]
    mean = [record for record in folder.records if isinstance(record, MeanAP)]
    if any(map(_FOUND_NOTHING.match, folder.lines)):
        return mean_average_precision(_nothing(), truth, names, THRESHOLD)
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
        "map50": mean[-1].value, **ratios(tp, fp, fn), "iou": counts[-1].iou, "threshold": THRESHOLD,
        "faces": len(truth.label), "per_class": rows,
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
    sizes = [size_of(photo) for photo in photos]
    with _folder(program, net, work, [str(index) for index in range(len(names))]) as folder:
        if program.dialect == "pjreddie":
            found = _valid(folder, photos, sizes, len(names))
        else:
            links = folder.link(photos)
            text = "".join(f"{link}\n" for link in links)
            arguments = ("-thresh", str(threshold), "-dont_show", "-ext_output", "-out", "result.json")
            folder.run("detector", "test", *arguments, stdin=text)
            found = _read_json(folder, links, sizes)
    best: list[dict[tuple[float, ...], Face]] = [{} for _ in photos]
    for index in np.argsort(-found.confidence, kind="stable"):
        box = tuple(float(value) for value in found.box[index])
        if found.confidence[index] > threshold:
            face = (int(found.label[index]), float(found.confidence[index]), box)
            best[found.photo[index]].setdefault(box, face)
    return [list(faces.values()) for faces in best]


def _valid(folder: "_Folder", photos: Sequence[Path], sizes: Sequence[tuple[int, int]], classes: int) -> Detections:
    more = max(0, _LEAST_PHOTOS - len(photos))
    links = folder.link([*photos, *photos[:1] * more])
    (folder.path / "results").mkdir()
    folder.run("detector", "valid")
    ended = any("Total Detection Time" in line for line in folder.lines)
    folder.require(ended, "it ended before the last photo")
    ids = {Path(link).stem: size for link, size in zip(links, [*sizes, *sizes[:1] * more], strict=True)}
    found = read_valid(folder.path / "results", "comp4_det_test_", ids, classes)
    asked = found.photo < len(photos)
    return Detections(found.photo[asked], found.label[asked], found.confidence[asked], found.box[asked])


def _read_json(folder: "_Folder", links: Sequence[str], sizes: Sequence[tuple[int, int]]) -> Detections:
    try:
        frames = json.loads((folder.path / "result.json").read_text())
        names = [frame["filename"] for frame in frames]
    except (OSError, ValueError, KeyError, TypeError):
        names = []
    folder.require(names == list(links), f"{len(names):,} of {len(links):,} photos came back")
    rows = [(photo, found) for photo, frame in enumerate(frames) for found in frame["objects"]]
    centre = [[found["relative_coordinates"][key] for key in ("center_x", "center_y")] for _, found in rows]
    extent = [[found["relative_coordinates"][key] for key in ("width", "height")] for _, found in rows]
    photo = np.array([photo for photo, _ in rows], int)
    size, extent = np.array(sizes, float).reshape(-1, 2)[photo], np.array(extent, float).reshape(-1, 2)
    corner = np.array(centre, float).reshape(-1, 2) - extent / 2
    confidence = np.array([found["confidence"] for _, found in rows], float)
    label = np.array([found["class_id"] for _, found in rows], int)
    return Detections(photo, label, confidence, np.concatenate([corner * size, extent * size], axis=1))


def _nothing() -> Detections:
    return Detections(np.zeros(0, int), np.zeros(0, int), np.zeros(0), np.zeros((0, 4)))


def read_list(list_file: Path) -> list[Path]:
    """Return the photos of an exported list.

    Raises:
        InputError: it cannot be read or lists none.
    """
    try:
        photos = [Path(line) for line in list_file.read_text(errors="surrogateescape").splitlines() if line]
    except OSError as error:
        raise InputError(f"{list_file}: {error.strerror}; make the Darknet folder anew with prepare.py") from error
    if not photos:
        raise InputError(f"{list_file}: lists no photo to score")
    return photos


class _Folder:
    """A folder that the program runs in, with the net, the names and the .data file; and what the program said."""

    def __init__(self, program: Program, net: Net, path: Path, log: Path, names: Sequence[str]) -> None:
        self.path, self.lines, self.records = path, [], []
        self._program, self._net, self._log = program, net, log
        self._photos: Sequence[Path] = ()
        self._count = len(layers(net.sections))
        if (held := whole_layers(net.weights, net.sections)) != self._count:
            raise InputError(f"{net.weights}: holds {held} of {self._count} layers of {net.cfg}; give the whole file")
        # One photo at a time: the program makes room for the whole batch of a cfg before it looks at its task.
        first = net.sections[0]
        first = replace(first, options=first.options | {"batch": "1", "subdivisions": "1"})
        (path / "net.cfg").write_text(render([first, *net.sections[1:]]))
        os.symlink(net.weights.absolute(), path / "net.weights")
        self.write("names.txt", names)
        data = {"classes": len(names), "train": "valid.txt", "valid": "valid.txt", "names": "names.txt"}
        data |= {"labels": "names.txt", "backup": ".", "results": "results", "top": min(5, len(names))}
        self.write("net.data", [f"{key} = {value}" for key, value in data.items()])

    def write(self, name: str, lines: Iterable[Any]) -> None:
        (self.path / name).write_text("".join(f"{line}\n" for line in lines), errors="surrogateescape")

    def link(self, photos: Sequence[Path]) -> list[str]:
        """Link the photos under numbered names, list these in valid.txt, and return them."""
        self._photos = photos
        (self.path / "photos").mkdir()
        names = [f"photos/{index:07d}{photo.suffix.lower()}" for index, photo in enumerate(photos)]
        for photo, name in zip(photos, names, strict=True):
            size_of(photo)
            os.symlink(photo.absolute(), self.path / name)
        self.write("valid.txt", names)
        return names

    def run(self, task: str, verb: str, *rest: str, stdin: str | None = None) -> None:
        """Run the program and keep its lines; refuse what it complains of, and weights that it did not load whole."""
        self._log.unlink(missing_ok=True)
        complaints = []

        def take(line: str) -> None:
            record = parse_line(line)
            self.lines.append(line)
            self.records.append(record)
            if isinstance(record, Complaint) and not _HARMLESS.search(line):
                complaints.append(line)

        arguments = [str(self._program.path), task, verb, "net.data", "net.cfg", "net.weights", *rest]
        self._what = f"{self._program.path} {task} {verb} with {self._net.weights}"
        self._finished = run(arguments, self.path, self._log, take, stdin)
        if complaints and not any(map(_FOUND_NOTHING.match, self.lines)):
            raise InputError(self._named(f"{self._what}: it complained: {complaints[0].strip()}"))
        loaded = [record for record in self.records if isinstance(record, Loaded)]
        self.require(bool(loaded), "it did not load the weights")
        if loaded[-1].layers not in (None, self._count):
            raise InputError(
                f"{self._what}: it loaded {loaded[-1].layers} of {self._count} layers; the file is not whole"
            )

    def require(self, condition: bool, otherwise: str) -> None:
        if not condition:
            raise InputError(self._named(f"{self._what}: {otherwise}; {explain(self._finished)}"))

    def _named(self, text: str) -> str:
        """Return a text with the photos' own paths in the place of the links."""
        return _LINK.sub(lambda found: str(self._photos[int(found[1])]), text)


@contextmanager
def _folder(program: Program, net: Net, work: Path, names: Sequence[str]) -> Iterator[_Folder]:
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work) as path:
        yield _Folder(program, net, Path(path), work / "program.log", names)
