"""What a preparation tells at its end, and the command that a message names to have one made."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from fer.data.source import SPLITS
from fer.system.command import command
from fer.system.words import amount

#: Reasons that a summary names; a reason may quote what a row holds, and so differ in each.
_REASONS = 10
# Keys of data that say where raw files lie, where it is not raw= alone; what is drawn has none that must be given.
_WANTED: dict[str, tuple[str, ...]] = {"fer2021": ("affectnet", "fer2013"), "sample": (), "scenes": ("faces",)}


class Summary(TypedDict):
    """What was written; ``counts`` is split -> source -> rows per class, ``skipped`` reason -> rows not taken.

    ``photos`` are the numbers of photos in the lists of a folder for the Darknet program, which no other has.
    """

    out: str
    counts: dict[str, dict[str, list[int]]]
    class_names: list[str]
    skipped: dict[str, int]
    notes: list[str]
    drawn: bool
    duplicates: dict[str, int]
    photos: NotRequired[dict[str, int]]


def count_table(counts: Mapping[str, Mapping[str, list[int]]], class_names: Sequence[str]) -> str:
    """Return the table of rows per split, source and class that ``prepare.py`` ends with."""
    rows: dict[str, list[int]] = {}
    for split in SPLITS:
        per_source = counts.get(split, {})
        for source, numbers in per_source.items():
            rows[f"{split} {source}"] = [*numbers, sum(numbers)]
        if len(per_source) > 1:
            total = [sum(column) for column in zip(*per_source.values(), strict=True)]
            rows[f"{split} all"] = [*total, sum(total)]
    # here, as predictions and checkpoints import this module's command_for
    import pandas as pd

    table = pd.DataFrame.from_dict(rows, orient="index", columns=[*class_names, "all"])
    return table.map("{:,}".format).to_string()


def describe(summary: Summary) -> str:
    """Return what a run of ``prepare`` says at its end."""
    lines = [count_table(summary["counts"], summary["class_names"])]
    if summary["drawn"]:
        lines.insert(0, "These are drawn sample data, not photos of people.")
    if listed := summary.get("photos"):
        lines.append("photos in the lists: " + ", ".join(f"{split} {n:,}" for split, n in listed.items()))
    lines += [f"note: {note}" for note in summary["notes"]]
    if found := {name: n for name, n in summary["duplicates"].items() if n}:
        lines.append(
            "rows with the same pixels as an earlier row: " + ", ".join(f"{n:,} {name}" for name, n in found.items())
        )
    if summary["skipped"]:
        rows, reasons = sum(summary["skipped"].values()), count_reasons(summary["skipped"])
        lines.append(f"skipped {amount(rows, 'row')} ({reasons}), listed in {summary['out']}.skipped.csv")
    lines.append(f"wrote {summary['out']}")
    return "\n".join(lines)


def count_reasons(skipped: Mapping[str, int]) -> str:
    """Return the commonest reasons with their numbers of rows, and how many rows have others.

    >>> count_reasons({"empty box": 3, "zero bytes": 1200})
    '1,200 zero bytes, 3 empty box'
    """
    ordered = sorted(skipped.items(), key=lambda item: (-item[1], item[0]))
    shown = [f"{n:,} {reason}" for reason, n in ordered[:_REASONS]]
    if rest := sum(n for _, n in ordered[_REASONS:]):
        shown.append(f"{rest:,} of {len(ordered) - _REASONS:,} other reasons")
    return ", ".join(shown)


def command_for(data: Mapping[str, Any]) -> str:
    """Return the ``prepare.py`` command that makes the file of a ``data`` config; what it lacks is PATH."""
    wanted = _WANTED.get(data["name"], ("raw",))
    paths = [f"data.{key}={shlex.quote(str(data[key])) if data.get(key) else 'PATH'}" for key in wanted]
    return " ".join([command("prepare"), f"data={data['name']}", *paths])


def drawn_otherwise(data: Mapping[str, Any], made_by: Mapping[str, Any], made: str | Path) -> str | None:
    """Return what to say where ``made`` holds another number of drawn photos than a ``data`` config asks for."""
    asked, drawn = data.get("photos"), made_by.get("photos")
    if asked is None or drawn is None or asked == drawn:
        return None
    return f"note: data.photos={asked} changes nothing: {made} is there, of {drawn} photos; take it away to have others"
