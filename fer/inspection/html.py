"""Parts of the pages that `look.py` writes: static, safe with any names, readable on a phone."""

import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from fer.errors import InputError
from fer.inspection.contents import DPI

#: By this an earlier page is known as ours.
GENERATOR = '<meta name="generator" content="fer look.py">'
#: Said above every page that may show people.
PEOPLE = "Faces of people: data sets of them are mostly licensed for research only. Don't publish this folder."


def page_text(title: str, notice: str, summary: str, sections: Mapping[str, str]) -> str:
    """Return a whole page; ``sections`` are title -> HTML, the other texts plain."""
    anchors = {name: name.lower().replace(" ", "-") for name in sections}
    return _HTML.format(
        generator=GENERATOR, title=as_text(title), notice=as_text(notice), summary=as_text(summary),
        links="".join(f'<li><a href="#{anchor}">{name}</a></li>' for name, anchor in anchors.items()),
        body="".join(f'<section id="{anchors[n]}"><h2>{n}</h2>{body}</section>\n' for n, body in sections.items()),
    )  # fmt: skip


def picture(figure: Figure, folder: Path, name: str, alt: str) -> str:
    """Write a figure as ``name`` into the page's folder and return what shows it."""
    figure.savefig(folder / name, format="png", dpi=DPI)
    width, height = figure.canvas.get_width_height()
    size = f'width="{width}" height="{height}"'
    return f'<a href="{name}"><img src="{name}" alt="{as_text(alt)}" {size} loading="lazy"></a>'


def require_ours(out: Path) -> None:
    """Refuse a folder that holds something else than an earlier page of ours.

    Raises:
        InputError: it does.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    page = out / "index.html"
    text = page.read_text("utf-8", "replace") if page.is_file() else ""
    if GENERATOR not in text:
        raise InputError(f"out={out}: holds something that look.py did not write; give another out=FOLDER")
    for entry in out.iterdir():
        if entry.name != "index.html" and f'"{entry.name}"' not in text:
            raise InputError(f"out={out}: look.py did not write {entry.name} in it; give another out=FOLDER")


def as_text(value: object) -> str:
    """Return text for HTML; what does not print, such as a line break or a change of direction, is spelt out."""
    return "".join(html.escape(c) if c.isprintable() else f"\\u{ord(c):04x}" for c in str(value))


def table(caption: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table that scrolls by itself; the first cell of each row is its heading."""

    def cell(value: object) -> str:
        if value is None or isinstance(value, str):
            return f'<td class="t">{as_text(value)}</td>'
        return f"<td>{value:,}</td>" if isinstance(value, int | np.integer) else f"<td>{value:.2f}</td>"

    head = "".join(f'<th scope="col">{as_text(name)}</th>' for name in header)
    body = "".join(f'<tr><th scope="row">{as_text(row[0])}</th>{"".join(map(cell, row[1:]))}</tr>' for row in rows)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{as_text(caption)}"><table>'
        f"<caption>{as_text(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


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
