"""A prepared file as one static page with its pictures: no script, no network, readable on a phone."""

import csv
import html
import os
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from fer.data.source import SPLITS
from fer.data.storage.hdf5 import opened
from fer.errors import InputError
from fer.inspection.contents import (
    DPI,
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
from fer.system.files import claiming, replacing_folder

#: By this an earlier page is known as ours.
_GENERATOR = '<meta name="generator" content="fer look.py">'


def write_page(file: str | Path, out: str | Path | None = None, seed: int = 0) -> Path:
    """Write index.html and its pictures of a prepared file into the folder ``out`` and return the page.

    ``out`` is by default the file's path without its ending and with ``-look``. The folder gets its name when it is
    complete; an earlier page of ours is replaced. ``seed`` chooses the faces of the contact sheets.

    Raises:
        InputError: the file is none of ours, or ``out`` holds something else or cannot be written.
    """
    file = Path(file)
    out = Path(os.path.abspath(out or file.with_name(f"{file.stem}-look")))
    _require_ours(out)
    contents = examine(file)
    with claiming(out), replacing_folder(out, _require_ours) as new:
        page = _Page(contents, new, seed)
        (new / "index.html").write_text(page.text(), "utf-8")
    print(page.summary())
    return out / "index.html"


def _require_ours(out: Path) -> None:
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    page = out / "index.html"
    text = page.read_text("utf-8", "replace") if page.is_file() else ""
    if _GENERATOR not in text:
        raise InputError(f"out={out}: holds something that look.py did not write; give another out=FOLDER")
    for entry in out.iterdir():
        if entry.name != "index.html" and f'src="{entry.name}"' not in text:
            raise InputError(f"out={out}: look.py did not write {entry.name} in it; give another out=FOLDER")


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
        anchors = {title: title.lower().replace(" ", "-") for title in sections}
        notice = "Faces of people: data sets of them are mostly licensed for research only. Don't publish this folder."
        if self._info.drawn:
            notice = "Drawn sample data, not photos of people."
        return _HTML.format(
            generator=_GENERATOR, title=_text(self._info.path.name), notice=notice, summary=self.summary(),
            links="".join(f'<li><a href="#{anchor}">{title}</a></li>' for title, anchor in anchors.items()),
            body="".join(f'<section id="{anchors[t]}"><h2>{t}</h2>{body}</section>\n' for t, body in sections.items()),
        )  # fmt: skip

    def summary(self) -> str:
        _, n, faces, differ = equal_faces_table(self._contents, self._groups)[-1]
        across = sum(len(set(self._contents.split[group])) > 1 for group in self._groups)
        return (
            f"{len(self._contents.label):,} {'drawn ' if self._info.drawn else ''}faces; {n:,} groups of equal faces "
            f"({faces:,} faces), {across:,} of them in several splits and {differ:,} with different labels; "
            f"{int(self._contents.flat.sum()):,} faces of a single grey level or colour"
        )

    def _balance(self) -> str:
        counts = self._info.counts
        rows = []
        for split in self._contents.splits():
            rows += [[f"{split} {source}", *n, sum(n)] for source, n in counts[split].items()]
        alt = "Faces of each class in each split; the table below has the numbers"
        table = _table("Faces by split, source and class", ["split and source", *self._names, "all"], rows)
        return self._picture(balance_figure(self._info), "balance.png", alt) + table

    def _sheets(self) -> str:
        text = ""
        for split in self._contents.splits():
            text += f"<h3>{split}</h3>"
            for label in np.unique(self._contents.label[self._contents.split == SPLITS.index(split)]):
                name = self._names[label]
                file = f"sheet-{split}-{label}-{re.sub('[^A-Za-z0-9]+', '_', name)[:40]}.png"
                alt = f"Contact sheet: faces labelled {name} in {split}, chosen at random"
                text += self._picture(contact_sheet(self._info.path, split, int(label), seed=self._seed), file, alt)
        return text

    def _means(self) -> str:
        alt = f"The mean face of each class: {', '.join(self._names)}"
        return self._picture(mean_faces_figure(self._contents), "mean.png", alt)

    def _equal(self) -> str:
        contents, groups = self._contents, self._groups
        if not groups:
            return "<p>No two faces have the same pixels.</p>"
        header = ["splits", "groups", "faces in them", "groups with different labels"]
        listed = [[f"{k + 1}", *self._where(i)] for k, group in enumerate(groups[:LISTED]) for i in group[:6]]
        one_row = sum(len(set(contents.row[group])) == 1 for group in groups)
        alt = "One face of each of the first groups with its splits and labels; the last table names its files"
        return (
            _table("Groups of faces with equal pixels", header, equal_faces_table(contents, groups))
            + (f"<p>{one_row:,} groups are one row that stands in several splits.</p>" if one_row else "")
            + self._picture(equal_faces_figure(contents, groups), "equal.png", alt)
            + "<p>First the groups with different labels, then those in several splits, then the larger ones.</p>"
            + _table("The first groups, up to six faces of each", ["group", *_PLACE], listed)
        )

    def _brightness(self) -> str:
        label = "mean brightness of a face (0 black, 255 white)"
        flat = np.flatnonzero(self._contents.flat)
        text = self._values(self._contents.brightness, "brightness", label)
        text += f"<p>{len(flat):,} faces are of a single grey level or colour.</p>"
        return text + (_table("The first of them", _PLACE, map(self._where, flat[:LISTED])) if len(flat) else "")

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
        return text + (_table("Valence and arousal by class", header, rows) if rows else "")

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
            return f"<p>No row was left out, or the list {_text(path.name)} does not lie beside the file.</p>"
        return _table("Rows left out, by reason", ["reason", "rows"], reasons.most_common()) + _table(
            f"The first of {reasons.total():,} rows left out", ["source", "path", "reason"], first
        )

    def _made(self) -> str:
        face = self._info.face
        rows = [("classes", ", ".join(self._names)), ("size in pixels", face.size), ("color", face.color)]
        rows += [("margin", face.margin), ("sources", ", ".join(self._info.sources))]
        rows += [(f"prepared with data.{key}", str(value)) for key, value in self._info.made_by.items()]
        return _table("What the file says of itself", ["what", "value"], rows)

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
        return self._picture(histogram_figure(known, label), f"{name}.png", alt) + _table(label, header, rows)

    def _where(self, i: int) -> tuple[str, ...]:
        """Return split, source, path and label of a row."""
        split, row = SPLITS[self._contents.split[i]], int(self._contents.index[i])
        with opened(self._info.path) as store:
            source, path = store[split]["source"][row], store[split]["path"].asstr()[row]
        return split, self._info.sources[source], path, self._names[self._contents.label[i]]

    def _picture(self, figure: Figure, name: str, alt: str) -> str:
        figure.savefig(self._folder / name, format="png", dpi=DPI)
        width, height = figure.canvas.get_width_height()
        size = f'width="{width}" height="{height}"'
        return f'<a href="{name}"><img src="{name}" alt="{_text(alt)}" {size} loading="lazy"></a>'


def _text(value: object) -> str:
    """Return text for HTML; what does not print, such as a line break or a change of direction, is spelt out."""
    return "".join(html.escape(c) if c.isprintable() else f"\\u{ord(c):04x}" for c in str(value))


def _table(caption: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table that scrolls by itself; the first cell of each row is its heading."""

    def cell(value: object) -> str:
        if value is None or isinstance(value, str):
            return f'<td class="t">{_text(value)}</td>'
        return f"<td>{value:,}</td>" if isinstance(value, int | np.integer) else f"<td>{value:.2f}</td>"

    head = "".join(f'<th scope="col">{_text(name)}</th>' for name in header)
    body = "".join(f'<tr><th scope="row">{_text(row[0])}</th>{"".join(map(cell, row[1:]))}</tr>' for row in rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{_text(caption)}"><table>'
        f"<caption>{_text(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


_PLACE = ("split", "source", "path", "label")

_HTML = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src 'self' file:; style-src 'unsafe-inline'">
{generator}
<title>{title}: what is in it</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 62rem; margin: auto;
  padding: 1rem }}
h1 {{ overflow-wrap: anywhere }}
img {{ max-width: 100%; height: auto; margin: .5rem 0; border: 1px solid #ddd }}
.scroll {{ overflow-x: auto; margin: 1rem 0 }}
table {{ border-collapse: collapse; font-size: .9rem }}
caption {{ text-align: left; font-weight: bold; padding: .3rem 0 }}
th, td {{ border: 1px solid #ccc; padding: .2rem .6rem; text-align: right }}
th, td.t {{ text-align: left }}
td.t {{ overflow-wrap: anywhere; min-width: 4rem }}
nav ul {{ padding: 0; display: flex; flex-wrap: wrap; gap: .2rem 1.2rem; list-style: none }}
.notice {{ border-left: .4rem solid #b35c00; padding: .4rem .8rem; background: #fff4e5; font-weight: bold }}
a:focus-visible, .scroll:focus-visible {{ outline: 3px solid #0b57d0 }}
</style>
</head>
<body>
<header><h1>{title}</h1><p class="notice">{notice}</p><p>{summary}.</p></header>
<nav aria-label="Sections"><ul>{links}</ul></nav>
<main>
{body}</main>
</body>
</html>
"""
