"""The folder that the program scores photos in, and the check that it did all of its work.

Links with short, numbered names stand for the photos: the program deletes blanks from paths, cuts those it reads from
standard input at 256 bytes, and knows a photo of `detector valid` by its name only. The program's exit code is never
trusted: it exits with 0 after most failures and takes a random picture for a photo that it can't read.
"""

import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from fer.darknet.formats.cfg import layers, render
from fer.darknet.formats.records import Complaint, Loaded, Record
from fer.darknet.formats.weights import Net, whole_layers
from fer.darknet.program_engine.log import parse_line
from fer.darknet.program_engine.own_files import own_file
from fer.darknet.program_engine.process import explain, run
from fer.darknet.program_engine.program import Program
from fer.darknet.scoring.mean_ap import photo_size
from fer.errors import InputError

_LINK = re.compile(r"photos/(\d{7})\.\w+")
# An option that a dialect lacks, which `require_support` has judged, and the letters that `detector test` draws with.
_HARMLESS = re.compile(r"Unused field|data/labels/\d+_\d\.png")
# Then AlexeyAB's `detector map` reads before the start of an empty table: it prints "inf" and may abort.
_NO_DETECTIONS = re.compile(r"\s*detections_count = 0,")


class WorkFolder:
    """A folder that the program runs in, with the net, the names and the .data file; and what the program said."""

    def __init__(self, program: Program, net: Net, path: Path, log: Path, names: Sequence[str]) -> None:
        self.path = path
        self.lines: list[str] = []
        self.records: list[Record | None] = []
        self._program, self._net, self._log = program, net, log
        self._photos: Sequence[Path] = ()
        self._count = len(layers(net.sections))
        if (count := whole_layers(net.weights, net.sections)) != self._count:
            raise InputError(f"{net.weights}: holds {count} of {self._count} layers of {net.cfg}; give the whole file")
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
            photo_size(photo)
            if self._program.tables.follows_links:
                own_file(photo, self.path / name)
            else:
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
        arguments += [flag] if (flag := self._program.tables.verbose) else []
        self._what = f"{self._program.path} {task} {verb} with {self._net.weights}"
        self._finished = run(arguments, self.path, self._log, take, stdin)
        if complaints and not self.no_detections:
            raise InputError(self._named(f"{self._what}: it complained: {complaints[0].strip()}"))
        loaded = [record for record in self.records if isinstance(record, Loaded)]
        self.require(bool(loaded), "it did not load the weights")
        if loaded[-1].layers not in (None, self._count):
            raise InputError(
                f"{self._what}: it loaded {loaded[-1].layers} of {self._count} layers; the file is not whole"
            )

    @property
    def no_detections(self) -> bool:
        """Whether the program said that the net detects nothing at all."""
        return any(map(_NO_DETECTIONS.match, self.lines))

    def require(self, condition: bool, otherwise: str) -> None:
        if not condition:
            raise InputError(self._named(f"{self._what}: {otherwise}; {explain(self._finished)}"))

    def _named(self, text: str) -> str:
        """Return a text with the photos' own paths in the place of the links."""
        return _LINK.sub(lambda match: str(self._photos[int(match[1])]), text)


@contextmanager
def work_folder(program: Program, net: Net, work: Path, names: Sequence[str]) -> Iterator[WorkFolder]:
    work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=work) as path:
        yield WorkFolder(program, net, Path(path), work / "program.log", names)
