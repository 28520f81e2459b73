"""A YOLO data set as one static page: its photos with their boxes drawn, sizes, classes, and faulty labels by line."""

import os
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from fer.data.photos import read_photo
from fer.data.readers.yolo.dataset import YoloDataset, YoloPhoto, write_faults
from fer.data.source import PhotoLimits
from fer.inspection.contents import DPI, LISTED, histogram_figure
from fer.inspection.html import PEOPLE, page_text, picture, require_ours, table
from fer.system.files import claiming, replacing_folder
from fer.system.words import amount

#: Pixels a side of a place for a photo on a contact sheet, and photos in a row of it.
_SIDE, _COLUMNS = 220, 4
#: Boxes that are drawn in a photo: one of 100,000 would take minutes and show nothing.
_DRAWN = 200
#: Colours of classes, by their ids.
_COLORS = [f"C{number}" for number in range(10)]


def write_yolo_page(data: YoloDataset, out: Path, limits: PhotoLimits, seed: int = 0) -> Path:
    """Write index.html, its pictures and faults.csv of a data set into the folder ``out`` and return the page.

    An earlier page of ours is replaced. ``seed`` chooses the photos that are shown, which alone are opened.

    Raises:
        InputError: ``out`` holds something else or cannot be written.
    """
    out = Path(os.path.abspath(out))
    require_ours(out)
    with claiming(out), replacing_folder(out, require_ours) as new:
        page = _Page(data, new, limits, seed)
        sections = {
            "Photos and faces": page.counts(), "Photos with their boxes": page.sheets(), "Box sizes": page.sizes(),
            "Faces of a photo": page.faces(), "What is amiss": page.faults(), "The data set": page.facts(),
        }  # fmt: skip
        text = page_text(str(data.raw), PEOPLE, page.summary(), sections)
        (new / "index.html").write_text(text, "utf-8")
    print("\n".join(data.describe()))
    return out / "index.html"


class _Page:
    """The sections; each writes its pictures into ``folder``."""

    def __init__(self, data: YoloDataset, folder: Path, limits: PhotoLimits, seed: int) -> None:
        self._data, self._folder, self._limits, self._seed = data, folder, limits, seed

    def summary(self) -> str:
        photos = [photo for photo, _ in self._data.photos().values()]
        faces, empty = sum(len(photo.labels.boxes) for photo in photos), sum(map(_is_empty, photos))
        lost = sum(photo.labels.lost for photo in photos)
        return (
            f"{amount(len(photos), 'photo')}, {amount(faces, 'box', 'boxes')} of "
            f"{amount(len(self._data.names), 'class', 'classes')}; {amount(empty, 'photo')} without any; "
            f"{amount(lost, 'photo')} with a label that is lost; {amount(len(self._data.faults), 'fault')}"
        )

    def counts(self) -> str:
        header = ["split", "photos", "without boxes", "with a lost label", "boxes", *self._data.names]
        rows = []
        for split, photos in self._data.splits.items():
            classes = np.bincount(_boxes(photos)[:, 0].astype(int), minlength=len(self._data.names))
            empty, lost = sum(map(_is_empty, photos)), sum(photo.labels.lost for photo in photos)
            rows.append([split, len(photos), empty, lost, int(classes.sum()), *classes.tolist()])
        return table("Photos and boxes by split and class", header, rows)

    def sheets(self) -> str:
        text = ""
        generator = np.random.default_rng(self._seed)
        for split, photos in self._data.splits.items():
            drawn = np.sort(generator.choice(len(photos), min(LISTED, len(photos)), replace=False))
            shown = [photos[index] for index in drawn]
            text += self._sheet(shown, f"{split}: {len(shown):,} of {len(photos):,} photos", f"sheet-{split}.png")
        if odd := [photo for photo, _ in self._data.photos().values() if photo.labels.odd]:
            title = f"with labels that are amiss: {min(len(odd), LISTED):,} of {len(odd):,} photos"
            text += self._sheet(odd[:LISTED], title, "sheet-amiss.png")
        return text

    def sizes(self) -> str:
        text = ""
        for at, name in ((3, "width"), (4, "height")):
            values = {split: 100 * _boxes(photos)[:, at] for split, photos in self._data.splits.items()}
            known = {split: part for split, part in values.items() if len(part)}
            if not known:
                return "<p>There is no box.</p>"
            label = f"{name} of a box in % of its photo's"
            header = ["split", "boxes", "smallest", "5 %", "median", "95 %", "largest"]
            rows = [[split, len(part), *np.percentile(part, (0, 5, 50, 95, 100))] for split, part in known.items()]
            figure = histogram_figure(known, label)
            text += picture(figure, self._folder, f"{name}.png", f"Distribution of the {label}; the table has numbers")
            text += table(label, header, rows)
        return text

    def faces(self) -> str:
        rows = []
        for split, photos in self._data.splits.items():
            numbers = Counter(min(len(photo.labels.boxes), 5) for photo in photos)
            rows.append([split, *(numbers[number] for number in range(6))])
        return table("Photos by their number of boxes", ["split", "0", "1", "2", "3", "4", "5 or more"], rows)

    def faults(self) -> str:
        data = self._data
        if not data.faults:
            return "<p>Nothing is amiss.</p>"
        write_faults(self._folder / "faults.csv", data.faults)
        effects = {fault.why: fault.effect for fault in data.faults}
        kinds = [[why, count, effects[why]] for why, count in data.fault_counts().items()]
        # the worst first
        order = sorted(data.faults, key=lambda fault: ("lost", "left out", "taken").index(fault.effect))
        rows = [[data.relative(f.file), f.line or None, f.why, f.shown] for f in order[:LISTED]]
        return (
            table("Faults by what is amiss, and what becomes of them", ["what is amiss", "how often", "it is"], kinds)
            + table(f"The first of {len(data.faults):,}", ["file", "line", "what is amiss", "it says"], rows)
            + '<p><a href="faults.csv">All of them, by file and line</a>. A photo with a lost label is left out of the '
            "training of a detector, which would learn that face as background.</p>"
        )

    def facts(self) -> str:
        rows = [["layout", self._data.kind], ["folder", str(self._data.root)], ["classes", ", ".join(self._data.names)]]
        return table(
            "What the data set says of itself", ["what", "value"], rows + [["note", n] for n in self._data.notes]
        )

    def _sheet(self, photos: Sequence[YoloPhoto], title: str, file: str) -> str:
        figure = boxes_figure(photos, self._data.names, self._limits, title)
        return picture(figure, self._folder, file, f"Contact sheet, {title}, each with its boxes and their classes")


def boxes_figure(photos: Sequence[YoloPhoto], names: Sequence[str], limits: PhotoLimits, title: str) -> Figure:
    """Return photos in a grid, each with boxes, their classes and its file's name; one that can't be read says so."""
    columns = max(1, min(_COLUMNS, len(photos)))
    rows, heading = -(-len(photos) // columns), textwrap.wrap(title, 28 * columns) or [""]
    place, top = _SIDE + 24, 12 + 17 * len(heading)
    width, height = max(columns * (_SIDE + 8), 240), top + rows * place
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    FigureCanvasAgg(figure)
    # a class called "a$b$c" is no formula
    figure.text(4 / width, 1 - 6 / height, "\n".join(heading), fontsize=10, va="top", parse_math=False)
    for number, photo in enumerate(photos):
        row, column = divmod(number, columns)
        bottom = height - top - row * place - _SIDE
        axes = figure.add_axes(
            ((4 + column * (_SIDE + 8)) / width, bottom / height, _SIDE / width, _SIDE / height)
        )  # fmt: skip
        axes.axis("off")
        axes.set_anchor("N")
        more = len(photo.labels.boxes) > _DRAWN
        name = _short(photo.path) + (f", {_DRAWN} of {len(photo.labels.boxes):,} boxes" if more else "")
        axes.text(0, -0.01, name, fontsize=7, va="top", parse_math=False, transform=axes.transAxes)
        image = read_photo(photo.file, "rgb", limits)
        if isinstance(image, str):
            axes.text(0.5, 0.5, image, fontsize=8, ha="center", transform=axes.transAxes)
            continue
        scale = _SIDE / max(image.shape[:2])
        high, wide = (max(1, round(side * scale)) for side in image.shape[:2])
        axes.imshow(cv2.resize(image, (wide, high), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC))
        for label, x, y, box_width, box_height in photo.labels.boxes[:_DRAWN].tolist():
            color = _COLORS[int(label) % len(_COLORS)]
            left, upper = (x - box_width / 2) * wide, (y - box_height / 2) * high
            edges = [left, left + box_width * wide], [upper, upper + box_height * high]
            axes.plot([edges[0][i] for i in (0, 1, 1, 0, 0)], [edges[1][i] for i in (0, 0, 1, 1, 0)], color, lw=1)
            axes.text(
                left, upper, names[int(label)][:16], fontsize=6, va="bottom", color="white", parse_math=False,
                clip_on=True, bbox={"facecolor": color, "edgecolor": "none", "pad": 0.5},
            )  # fmt: skip
        axes.set(xlim=(-0.5, wide - 0.5), ylim=(high - 0.5, -0.5))
    return figure


def _short(path: str) -> str:
    name = "".join(c if c.isprintable() else "?" for c in os.path.basename(path))
    return name if len(name) <= 36 else f"{name[:20]}…{name[-15:]}"


def _is_empty(photo: YoloPhoto) -> bool:
    return not len(photo.labels.boxes)


def _boxes(photos: Iterable[YoloPhoto]) -> np.ndarray:
    return np.concatenate([np.empty((0, 5)), *(photo.labels.boxes for photo in photos)])
