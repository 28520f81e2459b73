"""The folder of a run, of either engine: its cfg, lists and .data file, and run.json, which says what they are."""

import codecs
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fer.darknet.formats.cfg import Section, render
from fer.darknet.formats.photo_folder import DATA_FILE, NAMES_FILE, DarknetData
from fer.errors import InputError
from fer.runs.record import note
from fer.system.command import command

#: Facts that reports are made of, each with a value of its type.
_FACTS: dict[str, Any] = {
    "name": "", "task": "", "data": "", "folder": "", "drawn": False, "program": "", "judged_by": "",
}  # fmt: skip


def _is_facts(facts: Any) -> bool:
    typed = isinstance(facts, dict) and all(
        isinstance(facts.get(key, like), type(like)) for key, like in _FACTS.items()
    )
    return typed and isinstance(facts.get("pretrained"), str | None)


def lay_out(
    folder: Path, name: str, sections: Sequence[Section], data: DarknetData, facts: dict[str, Any]
) -> tuple[Path, Path]:
    """Write everything that the program reads into ``folder`` and return the .data and the .cfg file.

    Every path in the .data file is relative to the folder, where the program is started, because it deletes blanks from
    paths. The backup folder is made, since without it all work is lost at the first save. ``facts`` go to run.json.
    """
    (folder / "backup").mkdir(parents=True, exist_ok=True)
    names = NAMES_FILE[data.task]
    (folder / names).write_text("".join(f"{line}\n" for line in data.names))
    for split, path in data.lists.items():
        link = folder / f"{split}.txt"
        link.unlink(missing_ok=True)
        with open(path, "rb") as listed:
            marked = listed.read(3) == codecs.BOM_UTF8
        if marked:
            # the program would take the mark for a part of the first path
            link.write_bytes(path.read_bytes()[3:])
        else:
            os.symlink(path.absolute(), link)
    data_file = folder / DATA_FILE[data.task]
    lines = [f"classes = {len(data.names)}", "train = train.txt", f"valid = {judged_by(data)}.txt"]
    lines += [f"{key} = {names}" for key in ("names", *(("labels",) if data.task == "classifier" else ()))]
    lines.append("backup = backup")
    if data.task == "classifier":
        lines.append(f"top = {min(5, len(data.names))}")
    data_file.write_text("\n".join(lines) + "\n")
    cfg = folder / f"{name}.cfg"
    cfg.write_text(render(sections))
    write_facts(folder, facts)
    return data_file, cfg


def judged_by(data: DarknetData) -> str:
    """Return the split whose score chooses the best checkpoint: val, else test, as in the original experiment."""
    return "val" if "val" in data.lists else "test"


def write_facts(folder: Path, facts: dict[str, Any]) -> None:
    """Write into run.json what reports are made of: plain data on the program, the data and the start of a run."""
    note(folder, darknet=facts)


def read_facts(weights: Path) -> dict[str, Any]:
    """Return run.json of the run that wrote a weights file, or nothing where there is none.

    Raises:
        InputError: it is not one that `write_facts` writes.
    """
    for folder in (weights.parent, weights.parent.parent):
        path = folder / "run.json"
        if not path.is_file():
            continue
        try:
            facts = json.loads(path.read_text())
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
        except (ValueError, RecursionError):
            facts = None
        if isinstance(facts, dict) and "version" in facts:
            # a file of before 0.3 holds nothing else
            facts = facts.get("darknet", {})
        if not _is_facts(facts):
            raise InputError(f"{path}: is damaged, or of no run of {command('train')}: take it away")
        return facts
    return {}
