"""From raw data to a prepared file: the run itself."""

import csv
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from fer.data.preparation import backends
from fer.data.preparation.code import code_of
from fer.data.preparation.sources import open_source
from fer.data.preparation.stage import Backend, Stage
from fer.data.preparation.summary import Summary, count_reasons
from fer.data.readers.fer2013 import listed_rows
from fer.data.readers.ferplus import align_votes
from fer.data.source import FaceFormat, Skipped, Source
from fer.data.storage.csv_and_png import write_csv, write_folder
from fer.data.storage.hdf5 import counts_by_name, write_store
from fer.data.storage.shards import require_litdata, write_stream
from fer.errors import InputError
from fer.system.files import replacing, require_new_folder

FORMATS = ("h5", "litdata", "csv", "folder")
#: These are written by fer/darknet/formats/export.py.
DARKNET_FORMATS = ("darknet_detector", "darknet_classifier")


def prepare(
    data: Mapping[str, Any],
    out: Path,
    form: str = "h5",
    workers: int | None = None,
    on: str = "local",
    address: str | None = None,
    shards: str | None = None,
) -> Summary:
    """Read raw data and write ``out`` as ``form``, one of FORMATS; resumes where a killed run stopped.

    Photos are decoded by ``workers`` threads (``on="local"``), or by the Dask cluster at ``address`` (``on="dask"``);
    what is written is the same. ``shards`` is where those of "litdata" will be copied to. Rows that cannot be used are
    listed with the reason in ``<out>.skipped.csv``.

    Raises:
        InputError: a wrong option, raw files that are not there, no usable face at all, or a cluster that was lost.
    """
    _check_form(form, out, shards, data.get("votes"))
    backend = _backend(on, workers, address, data, out)
    source = open_source(data)
    if twice := [name for name, times in Counter(source.class_names).items() if times > 1]:
        raise InputError(f"data.classes: {twice[0]} stands there twice; give each class a name of its own")
    votes, notes = _votes(data, source)
    stage = _open_stage(source, data, out)
    with stage.kept():
        _decode(stage, source, backend)
    listed = writing_skipped(out.with_name(out.name + ".skipped.csv"), stage.skipped)
    skipped = dict(Counter(entry.reason for entry in stage.skipped))
    if not stage.counts.any():
        # what is amiss may be put right before the next run, which must then look at every row again
        stage.remove()
        with listed:
            pass
        raise InputError(
            f"no usable face in the raw files of data={data['name']}: {count_reasons(skipped) or 'there are no rows'}"
            + (f"; they are listed in {out}.skipped.csv" if skipped else "")
        )
    drawn = "drawn" in source.names
    with stage.kept(), listed:
        duplicates = _write(form, out, stage, source, data, drawn, votes, shards)
    stage.remove()
    return {
        "out": str(out), "counts": counts_by_name(stage.counts, source.names), "class_names": list(source.class_names),
        "skipped": skipped,
        "notes": [*source.notes, *stage.notes, *notes], "drawn": drawn, "duplicates": duplicates,
    }  # fmt: skip


def _open_stage(source: Source, data: Mapping[str, Any], out: Path) -> Stage:
    """Return the place beside ``out`` for the decoded blocks of a source; those of an earlier run are taken as is."""
    stage = Stage(out, {**source.fingerprint(), "code": code_of(source, data)})
    if stage.found:
        print(f"going on with the {stage.found} blocks that an earlier run left in {stage.folder}")
    return stage


def _decode(stage: Stage, source: Source, backend: Backend) -> None:
    try:
        stage.fill(source, backend)
    except KeyboardInterrupt:
        print(f"\ninterrupted; the same command goes on where this one stopped ({stage.folder})")
        raise


@contextmanager
def writing_skipped(path: Path, skipped: list[Skipped]) -> Iterator[None]:
    """Write the rows that were not taken, with the reasons, as csv; without any there is no file.

    A byte of a file's name that is not UTF-8 is written as ``\\udcff``, for FF, so that the csv itself is UTF-8. It is
    there after the block; where that raises, the file of an earlier run is what it was.
    """
    if not skipped:
        yield
        path.unlink(missing_ok=True)
        return
    with replacing(path) as temporary:
        with open(temporary, "w", newline="", encoding="utf-8", errors="backslashreplace") as file:
            writer = csv.writer(file)
            writer.writerow(["source", "path", "reason"])
            writer.writerows((entry.source, entry.path, entry.reason) for entry in skipped)
        yield


def _check_form(form: str, out: Path, shards: str | None, votes: str | None) -> None:
    """Refuse what cannot be written, before anything is read."""
    if form not in FORMATS:
        raise InputError(f"format={form}: not one of {', '.join((*FORMATS, *DARKNET_FORMATS))}")
    if form in ("folder", "litdata"):
        require_new_folder(out)
    if form == "litdata":
        require_litdata()
    elif shards:
        raise InputError(f"shards={shards} needs format=litdata")
    if votes and form not in ("h5", "litdata"):
        raise InputError(f"data.votes={votes} is a column of an HDF5 file; format={form} has no place for it")


def _backend(on: str, workers: int | None, address: str | None, data: Mapping[str, Any], out: Path) -> Backend:
    if on == "dask":
        raw = [Path(data[key]).expanduser() for key in ("raw", "affectnet", "fer2013") if data.get(key)]
        remedy = f"the same command, or one with prepare.backend=local, goes on from {out}.partial"
        return backends.dask(address, raw, remedy)
    if on != "local":
        raise InputError(f"prepare.backend={on}: not local or dask")
    if address:
        raise InputError(f"prepare.address={address} needs prepare.backend=dask")
    return backends.local(workers)


def _votes(data: Mapping[str, Any], source: Source) -> tuple[np.ndarray | None, list[str]]:
    """Return the FER+ votes of the rows of the raw file, uint8 (n, 10), where they are asked for, and notes on them."""
    if not data.get("votes"):
        return None, []
    votes, note = align_votes(Path(data["votes"]).expanduser(), data["raw"], listed_rows(source))
    return votes, [note]


def _write(
    form: str, out: Path, stage: Stage, source: Source, data: Mapping[str, Any], drawn: bool,
    votes: np.ndarray | None, shards: str | None,
) -> dict[str, int]:  # fmt: skip
    """Write all blocks as ``form`` and return the numbers of duplicates, which only prepared files have counted."""
    face = FaceFormat(data["size"], data["color"], data["margin"])
    if form == "csv":
        write_csv(out, stage.blocks, face)
        return {}
    if form == "folder":
        write_folder(out, stage.blocks, source.class_names, source.names)
        return {}
    # what concerns readers only, or was not given, is no part of how the file was made
    idle = ("keep", "shards", "folds", "fold", *(() if data.get("votes") else ("votes",)))
    made_by = {key: value for key, value in data.items() if key not in idle}
    facts = (source.class_names, source.names, face, drawn, made_by, votes)
    if form == "litdata":
        return write_stream(out, stage.blocks, *facts, shards).duplicates
    return write_store(out, stage.blocks, *facts).duplicates
