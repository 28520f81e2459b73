"""Training runs side by side: what was changed between them, and what came of it."""

import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fer.errors import InputError
from fer.evaluation.text import aligned
from fer.runs.hparams import flat
from fer.runs.record import FILE, read_record
from fer.system.files import replacing
from fer.system.words import amount

#: How far below a given folder runs are looked for: runs/NAME/DATE/JOB.
_DEPTH = 3
#: What a run's folder has, the first since 0.3.
_MARKS = (FILE, ".hydra", "checkpoints", "backup")
#: Columns of scores that every table has.
_SCORES = ("val/acc", "val/balanced_acc")
#: Of the other scores those that choose the best checkpoint of a Darknet net.
_DARKNET_SCORES = ("val/top1", "val/map50")
#: Keys that differ because others do, or say nothing of what is trained.
_CONSEQUENCES = ("name", "tags", "notes")


@dataclass(frozen=True)
class Table:
    """Rows of cells as ``columns`` name them: text, numbers, and None where a run does not tell.

    ``left_out`` are lines on folders that hold no whole record.
    """

    columns: list[str]
    rows: list[list[Any]]
    left_out: list[str]

    def __str__(self) -> str:
        parts = []
        if self.rows:
            shown = [[_text(name, cell) for name, cell in zip(self.columns, row, strict=True)] for row in self.rows]
            left = next(number for number, name in enumerate(self.columns) if name in (*_SCORES, "best"))
            parts.append(aligned([self.columns, *shown], left=left))
        if self.left_out:
            folders = amount(len(self.left_out), "folder is", "folders are")
            parts.append("\n".join([f"{folders} left out:", *(f"  {line}" for line in self.left_out)]))
        return "\n\n".join(parts)

    def write_csv(self, path: Path) -> None:
        """Write the rows with all digits.

        Raises:
            InputError: it cannot be written.
        """
        with replacing(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerows([self.columns, *self.rows])


def compare_runs(folders: Iterable[Path], root: Path | None = None) -> Table:
    """Return the runs in and below some folders as a table, in the order given.

    Columns: run (what tells the folders apart, or their path below ``root``), the keys that were changed between them,
    val/acc, val/balanced_acc, best (epoch, or iteration of a Darknet net), seconds, exit.
    """
    runs, left_out, seen = [], [], set()
    for given in folders:
        found = list(_runs_below(given, _DEPTH)) or [given]
        for folder in found:
            if (real := os.path.realpath(folder)) in seen:
                continue
            seen.add(real)
            try:
                runs.append((folder, read_record(folder)))
            except InputError as error:
                left_out.append(str(error))
    records = [record for _, record in runs]
    changed = _changed(records)
    taken = {score for record in records for score in _result(record)["scores"]}
    scores = [*_SCORES, *(score for score in _DARKNET_SCORES if score in taken)]
    rows = [
        [name, *(values[number] for values in changed.values()), *_outcome(record, scores)]
        for number, (name, record) in enumerate(zip(_names([folder for folder, _ in runs], root), records, strict=True))
    ]
    return Table(["run", *changed, *scores, "best", "seconds", "exit"], rows, left_out)


def _result(record: dict[str, Any]) -> dict[str, Any]:
    return {"scores": {}} | (record["result"] or {})


def _outcome(record: dict[str, Any], scores: Sequence[str]) -> list[Any]:
    result = _result(record)
    best = result.get("epoch", result.get("iteration"))
    return [*map(result["scores"].get, scores), best, record["seconds"], record["exit"]]


def _runs_below(folder: Path, depth: int) -> Iterator[Path]:
    """Yield this folder where it is a run's, else those below it, in order; links are not followed."""
    if any((folder / name).exists() for name in _MARKS):
        yield folder
    elif depth:
        try:
            inner = [entry.path for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
        except OSError:
            return
        # 2 before 10
        for path in sorted(inner, key=lambda path: (len(path), path)):
            yield from _runs_below(Path(path), depth - 1)


def _names(folders: Sequence[Path], root: Path | None) -> list[str]:
    paths = [Path(os.path.abspath(folder)) for folder in folders]
    base = Path(os.path.abspath(root)).parts if root else os.path.commonprefix([path.parent.parts for path in paths])
    return ["/".join(path.parts[len(base) :]) for path in paths]


def _changed(records: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Return the keys that differ between runs, each with its value in every run.

    These are the overrides of the commands, as they were typed; where two runs differ though their overrides are the
    same, as after a change in conf/, all keys of the config.
    """
    configs = [flat(record["config"]) for record in records]
    typed = [dict(_split(override) for override in record["overrides"]) for record in records]
    typed = [{key: value for key, value in each.items() if not key.startswith("hydra")} for each in typed]
    differing = [key for key in _keys(configs) if _differ(each.get(key) for each in configs)]
    differing = [key for key in differing if key not in _CONSEQUENCES]
    set_by: dict[str, list[Any]] = {}
    for each, config in zip(typed, configs, strict=True):
        values = [config.get(key) for key in differing]
        if set_by.setdefault(repr(sorted(each.items())), values) != values:
            return {key: [config.get(key) for config in configs] for key in differing}
    keys = [key for key in _keys(typed) if _differ(each.get(key) for each in typed)]
    runs = list(zip(typed, configs, strict=True))
    columns = {key: [each.get(key, config.get(key)) for each, config in runs] for key in keys}
    for key in keys:
        if (target := f"{key}._target_") in columns:
            # one column for what chooses a part: its class, or the name of one of ours
            columns[key] = [each.get(target) or each.get(key) or config.get(target) for each, config in runs]
            del columns[target]
    return columns


def _split(override: str) -> tuple[str, str]:
    key, _, value = override.partition("=")
    return key.lstrip("+~"), value


def _keys(mappings: Sequence[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for each in mappings for key in each))


def _differ(values: Iterable[Any]) -> bool:
    return len({repr(value) for value in values}) > 1


def _text(column: str, cell: Any) -> str:
    if column == "exit":
        # the first words: what an error says may be long
        return "no end" if cell is None else cell.split(";")[0][:60]
    if cell is None:
        return "–"
    if isinstance(cell, float):
        return f"{cell:,.1f}" if column == "seconds" else f"{cell:.4f}" if column.startswith("val/") else f"{cell:g}"
    return str(cell)
