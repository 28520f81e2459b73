"""A prepared file as one static page with its pictures: no script, no network, readable on a phone."""

import csv
import os
import re
from collections import Counter
from pathlib import Path

import numpy as np

from fer.data.source import SPLITS
from fer.data.storage.hdf5 import opened
from fer.inspection.contents import (
    LISTED,
    Contents,
    balance_figure,
    contact_sheet,
    equal_faces,
    equal_faces_figure,
    equal_faces_table,
    examine,
    histogram_figure,
    mean_faces_figure,
)  # fmt: skip
from fer.inspection.html import PEOPLE, as_text, page_text, picture, require_ours, table
from fer.system.files import claiming, replacing_folder
from fer.system.words import amount


def write_page(file: str | Path, out: str | Path | None = None, seed: int = 0) -> Path:
    """Write index.html and its pictures of a prepared file into the folder ``out`` and return the page.

    ``out`` is by default the file's path without its ending and with ``-look``. The folder gets its name when it is
    complete; an earlier page of ours is replaced. ``seed`` chooses the faces of the contact sheets.

    Raises:
        InputError: the file is none of ours, or ``out`` holds something else or cannot be written.
    """
    file = Path(file)
    out = Path(os.path.abspath(out or file.with_name(f"{file.stem}-look")))
    require_ours(out)
    contents = examine(file)
    with claiming(out), replacing_folder(out, require_ours) as new:
        page = _Page(contents, new, seed)
        (new / "index.html").write_text(page.text(), "utf-8")
    print(page.summary())
    return out / "index.html"


class _Page:
    """The text of the page, section by section; each section writes its pictures into ``folder``."""

    def __init__(self, contents: Contents, folder: Path, seed: int) -> None:
        self._contents, self._info, self._names = contents, contents.info, contents.info.class_names
        self._folder, self._seed = folder, seed
        self._groups = equal_faces(contents)

    def text(self) -> str:
        sections = {
            "Class balance": self._balance(), "Contact sheets": self._sheets(), "Mean faces": self._means(),
            "Equal faces": self._equal(), "Brightness": self._brightness(), "Annotated boxes": self._boxes(),
            "Valence and arousal": self._affect(), "Skipped rows": self._skipped(), "The file": self._made(),
        }  # fmt: skip
        notice = "Drawn sample data, not photos of people." if self._info.drawn else PEOPLE
        return page_text(self._info.path.name, notice, self.summary(), sections)

    def summary(self) -> str:
        _, n, faces, differ = equal_faces_table(self._contents, self._groups)[-1]
        drawn = "drawn " if self._info.drawn else ""
        across = sum(len(set(self._contents.split[group])) > 1 for group in self._groups)
        return (
            f"{amount(len(self._contents.label), f'{drawn}face')}; {amount(n, 'group')} of equal faces "
            f"({amount(faces, 'face')}), {across:,} of them in several splits and {differ:,} with different labels; "
            f"{amount(int(self._contents.flat.sum()), 'face')} of a single grey level or colour"
        )

    def _balance(self) -> str:
        counts = self._info.counts
        rows = []
        for split in self._contents.splits():
            rows += [[f"{split} {source}", *n, sum(n)] for source, n in counts[split].items()]
        alt = "Faces of each class in each split; the table below has the numbers"
        numbers = table("Faces by split, source and class", ["split and source", *self._names, "all"], rows)
        return picture(balance_figure(self._info), self._folder, "balance.png", alt) + numbers

    def _sheets(self) -> str:
        text = ""
        for split in self._contents.splits():
            text += f"<h3>{split}</h3>"
            for label in np.unique(self._contents.label[self._contents.split == SPLITS.index(split)]):
                name = self._names[label]
                file = f"sheet-{split}-{label}-{re.sub('[^A-Za-z0-9]+', '_', name)[:40]}.png"
                alt = f"Contact sheet: faces labelled {name} in {split}, chosen at random"
                text += picture(
                    contact_sheet(self._info.path, split, int(label), seed=self._seed), self._folder, file, alt
                )
        return text

    def _means(self) -> str:
        alt = f"The mean face of each class: {', '.join(self._names)}"
        return picture(mean_faces_figure(self._contents), self._folder, "mean.png", alt)

    def _equal(self) -> str:
        contents, groups = self._contents, self._groups
        if not groups:
            return "<p>No two faces have the same pixels.</p>"
        header = ["splits", "groups", "faces in them", "groups with different labels"]
        listed = [[f"{k + 1}", *self._where(i)] for k, group in enumerate(groups[:LISTED]) for i in group[:6]]
        one_row = sum(len(set(contents.row[group])) == 1 for group in groups)
        alt = "One face of each of the first groups with its splits and labels; the last table names its files"
        return (
            table("Groups of faces with equal pixels", header, equal_faces_table(contents, groups))
            + (f"<p>{one_row:,} groups are one row that stands in several splits.</p>" if one_row else "")
            + picture(equal_faces_figure(contents, groups), self._folder, "equal.png", alt)
            + "<p>First the groups with different labels, then those in several splits, then the larger ones.</p>"
            + table("The first groups, up to six faces of each", ["group", *_PLACE], listed)
        )

    def _brightness(self) -> str:
        label = "mean brightness of a face (0 black, 255 white)"
        flat = np.flatnonzero(self._contents.flat)
        text = self._values(self._contents.brightness, "brightness", label)
        text += f"<p>{amount(len(flat), 'face is', 'faces are')} of a single grey level or colour.</p>"
        return text + (table("The first of them", _PLACE, map(self._where, flat[:LISTED])) if len(flat) else "")

    def _boxes(self) -> str:
        width, height = np.where(self._contents.box < 0, np.nan, self._contents.box).astype(np.float32)[:, 2:].T
        text = self._values(width, "box_width", "box width in pixels of the photo")
        return text + self._values(height, "box_height", "box height in pixels of the photo")

    def _affect(self) -> str:
        valence, arousal = self._contents.valence, self._contents.arousal
        text = self._values(valence, "valence", "valence (-1 unpleasant to 1 pleasant)")
        text += self._values(arousal, "arousal", "arousal (-1 calm to 1 excited)")
        rows = []
        for k, name in enumerate(self._names):
            known = (self._contents.label == k) & ~np.isnan(valence) & ~np.isnan(arousal)
            if known.any():
                v, a = valence[known], arousal[known]
                rows.append([name, int(known.sum()), v.mean(), v.std(), a.mean(), a.std()])
        header = ["class", "known", "mean valence", "standard deviation", "mean arousal", "standard deviation"]
        return text + (table("Valence and arousal by class", header, rows) if rows else "")

    def _skipped(self) -> str:
        """Return the section on the rows that preparation left out; the list may be long and hold any names."""
        path = self._info.path.with_name(self._info.path.name + ".skipped.csv")
        reasons: Counter[str | None] = Counter()
        first: list[list[str | None]] = []
        if path.is_file():
            with open(path, newline="", encoding="utf-8", errors="replace") as opened:
                for row in csv.DictReader(opened):
                    reasons[row.get("reason")] += 1
                    if len(first) < LISTED:
                        first.append([row.get(name) for name in ("source", "path", "reason")])
        if not reasons:
            return f"<p>No row was left out, or the list {as_text(path.name)} does not lie beside the file.</p>"
        return table("Rows left out, by reason", ["reason", "rows"], reasons.most_common()) + table(
            f"The first of {reasons.total():,} rows left out", ["source", "path", "reason"], first
        )

    def _made(self) -> str:
        face = self._info.face
        rows = [("classes", ", ".join(self._names)), ("size in pixels", face.size), ("color", face.color)]
        rows += [("margin", face.margin), ("sources", ", ".join(self._info.sources))]
        rows += [(f"prepared with data.{key}", str(value)) for key, value in self._info.made_by.items()]
        return table("What the file says of itself", ["what", "value"], rows)

    def _values(self, data: np.ndarray, name: str, label: str) -> str:
        """Return the distribution of a number (n,), NaN where unknown, as a picture and a table of the splits."""
        known = {split: values for split, values in self._contents.by_split(data).items() if len(values)}
        if not known:
            return f"<p>Not known: {label}.</p>"
        header = ["split", "known", "mean", "standard deviation", "smallest", "5 %", "median", "95 %", "largest"]
        rows = [
            [split, len(v), v.mean(), v.std(), *np.percentile(v, (0, 5, 50, 95, 100))] for split, v in known.items()
        ]
        alt = f"Distribution of {label} in each split; the table below has its numbers"
        return picture(histogram_figure(known, label), self._folder, f"{name}.png", alt) + table(label, header, rows)

    def _where(self, i: int) -> tuple[str, ...]:
        """Return split, source, path and label of a row."""
        split, row = SPLITS[self._contents.split[i]], int(self._contents.index[i])
        with opened(self._info.path) as store:
            source, path = store[split]["source"][row], store[split]["path"].asstr()[row]
        return split, self._info.sources[source], path, self._names[self._contents.label[i]]


_PLACE = ("split", "source", "path", "label")
