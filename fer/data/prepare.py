"""From raw data to a prepared file: which reader, the run itself, and what it tells at its end."""

import csv
import shlex
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from fer.data import backend
from fer.data.affectnet import affectnet_source
from fer.data.export import require_new_folder, write_csv, write_folder
from fer.data.fer2013 import fer2013_source, listed_rows
from fer.data.folder import folder_source
from fer.data.merge import MergedSource, MovedSource, PreparedSource
from fer.data.sample import draw_sample, is_drawn
from fer.data.source import SPLITS, FaceFormat, PhotoLimits, Skipped, Source
from fer.data.stage import Backend, Stage
from fer.data.store import counts_by_name, is_store, read_info, write_store
from fer.data.stream import require_litdata, write_stream
from fer.data.table import table_source
from fer.data.votes import align_votes
from fer.errors import InputError
from fer.labels import CLASSES, CLASSES_WITH_CONTEMPT

FORMATS = ("h5", "litdata", "csv", "folder")
#: These are written by fer/darknet/export.py.
DARKNET_FORMATS = ("darknet_detector", "darknet_classifier")


def open_source(data: Mapping[str, Any]) -> Source:
    """Return the reader of one ``data`` config (see ``conf/data``): where its raw files lie and how faces are cut.

    Raises:
        InputError: the raw files are not named, not there, or not what the reader expects.
    """
    name = data["name"]
    face = FaceFormat(data["size"], data["color"], data["margin"])
    limits = PhotoLimits(data["min_bytes"], data["max_bytes"], data["max_pixels"])
    classes = CLASSES_WITH_CONTEMPT if data.get("contempt") else CLASSES
    if name == "fer2021":
        return MergedSource(
            [
                # FER2013 alone gives val and test
                _affectnet_to_train(_raw(data, "affectnet"), data, face, limits, classes),
                _fer2013(_raw(data, "fer2013"), data, face, limits, classes),
            ]
        )
    if name == "sample":
        raw = Path(data["raw"])
        _draw(raw, data["seed"], data["photos"])
        own_val = {"val_fraction": data["val_fraction"], "seed": data["seed"]}
        return affectnet_source(raw, face, limits, classes, **own_val, name="drawn")
    raw = _raw(data, "raw")
    if name == "affectnet":
        return _affectnet(raw, data, face, limits, classes)
    if name == "fer2013":
        return _fer2013(raw, data, face, limits, classes)
    own = {"class_names": data["classes"], "val_fraction": data["val_fraction"]}
    own |= {"test_fraction": data["test_fraction"], "seed": data["seed"]}
    return folder_source(raw, face, limits, **own) if name == "folder" else table_source(raw, face, limits, **own)


def _draw(raw: Path, seed: int, photos: int) -> None:
    if not is_drawn(raw, seed, photos):
        with tqdm(total=photos, desc="draw", unit="photo") as bar:
            draw_sample(raw, seed, photos, lambda done, _: bar.update(done - bar.n))


def _raw(data: Mapping[str, Any], key: str) -> Path:
    if not data[key]:
        raise InputError(f"data.{key} is not set: say where the raw files lie with data.{key}=PATH")
    path = Path(data[key]).expanduser()
    if not path.exists():
        raise InputError(f"data.{key}={path}: no such file or folder")
    return path


def _affectnet(raw, data, face, limits, classes) -> Source:
    if raw.is_file():
        # a prepared file, or the seed's affectnet.csv or data.h5
        return PreparedSource(raw, face) if is_store(raw) else fer2013_source(raw, face, limits, classes, data["seed"])
    return affectnet_source(raw, face, limits, classes, val_fraction=data["val_fraction"], seed=data["seed"])


def _affectnet_to_train(raw, data, face, limits, classes) -> Source:
    """Return all of AffectNet as training rows: the seed trains on its validation set too."""
    if raw.is_dir():
        return affectnet_source(raw, face, limits, classes, val_as=("train",))
    own_val = is_store(raw) and read_info(raw).made_by.get("val_fraction", 0) > 0
    # without a val split of its own, val and test are the same rows twice
    return MovedSource(
        _affectnet(raw, data, face, limits, classes), {"val": "train", "test": "train" if own_val else None}
    )


def _fer2013(raw, data, face, limits, classes) -> Source:
    return PreparedSource(raw, face) if is_store(raw) else fer2013_source(raw, face, limits, classes, data["seed"])


def prepare(
    data: Mapping[str, Any],
    out: Path,
    form: str = "h5",
    workers: int | None = None,
    on: str = "local",
    address: str | None = None,
    shards: str | None = None,
) -> dict[str, Any]:
    """Read raw data and write ``out`` as ``form``, one of FORMATS; resumes where a killed run stopped.

    Photos are decoded by ``workers`` threads (``on="local"``), or by the Dask cluster at ``address`` (``on="dask"``);
    what is written is the same. ``shards`` is where those of "litdata" will be copied to. Rows that cannot be used are
    listed with the reason in ``<out>.skipped.csv``. Returns counts and notes.

    Raises:
        InputError: a wrong option, raw files that are not there, no usable face at all, or a cluster that was lost.
    """
    if form not in FORMATS:
        raise InputError(f"format={form}: not one of {', '.join((*FORMATS, *DARKNET_FORMATS))}")
    if form in ("folder", "litdata"):
        require_new_folder(out)
    if form == "litdata":
        require_litdata()
    elif shards:
        raise InputError(f"shards={shards} needs format=litdata")
    decoding = _backend(on, workers, address, data, out)
    source = open_source(data)
    votes, votes_note = None, []
    if data.get("votes"):
        if form not in ("h5", "litdata"):
            raise InputError(
                f"data.votes={data['votes']} is a column of an HDF5 file; format={form} has no place for it"
            )
        votes, note = align_votes(Path(data["votes"]).expanduser(), data["raw"], listed_rows(source))
        votes_note.append(note)
    out.parent.mkdir(parents=True, exist_ok=True)
    stage = Stage(out, source.fingerprint())
    if stage.found:
        print(f"going on with the {stage.found} blocks that an earlier run left in {stage.folder}")
    try:
        stage.fill(source, decoding)
    except KeyboardInterrupt:
        print(f"\ninterrupted; the same command goes on where this one stopped ({stage.folder})")
        raise
    face = FaceFormat(data["size"], data["color"], data["margin"])
    write_skipped(out.with_name(out.name + ".skipped.csv"), stage.skipped)
    counts = counts_by_name(stage.counts, source.names)
    if not counts:
        # what is amiss may be put right before the next run, which must then look at every row again
        stage.remove()
        raise InputError(
            f"no usable face in the raw files of data={data['name']}; the reasons are in {out}.skipped.csv"
        )
    drawn = "drawn" in source.names
    info = None
    if form in ("h5", "litdata"):
        # what concerns readers only, or was not given, is no part of how the file was made
        idle = ("keep", "shards", *(() if data.get("votes") else ("votes",)))
        made_by = {key: value for key, value in data.items() if key not in idle}
        facts = (source.class_names, source.names, face, drawn, made_by, votes)
        if form == "h5":
            info = write_store(out, stage.blocks, *facts)
        else:
            info = write_stream(out, stage.blocks, *facts, shards)
    elif form == "csv":
        write_csv(out, stage.blocks, face)
    else:
        write_folder(out, stage.blocks, source.class_names, source.names)
    stage.remove()
    return {
        "out": str(out), "counts": counts, "class_names": list(source.class_names),
        "skipped": dict(Counter(entry.reason for entry in stage.skipped)),
        "notes": [*source.notes, *votes_note], "drawn": drawn, "duplicates": info.duplicates if info else {},
    }  # fmt: skip


def _backend(on: str, workers: int | None, address: str | None, data: Mapping[str, Any], out: Path) -> Backend:
    if on == "dask":
        raw = [Path(data[key]).expanduser() for key in ("raw", "affectnet", "fer2013") if data.get(key)]
        remedy = f"the same command, or one with prepare.backend=local, goes on from {out}.partial"
        return backend.dask(address, raw, remedy)
    if on != "local":
        raise InputError(f"prepare.backend={on}: not local or dask")
    if address:
        raise InputError(f"prepare.address={address} needs prepare.backend=dask")
    return backend.local(workers)


def write_skipped(path: Path, skipped: list[Skipped]) -> None:
    """Write the rows that were not taken, with the reasons, as csv; without any there is no file."""
    path.unlink(missing_ok=True)
    if skipped:
        with open(path, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["source", "path", "reason"])
            writer.writerows((entry.source, entry.path, entry.reason) for entry in skipped)


def count_table(counts: Mapping[str, Mapping[str, list[int]]], class_names: list[str]) -> str:
    """Return the table of rows per split, source and class that ``prepare.py`` ends with."""
    rows = {}
    for split in SPLITS:
        per_source = counts.get(split, {})
        for source, numbers in per_source.items():
            rows[f"{split} {source}"] = [*numbers, sum(numbers)]
        if len(per_source) > 1:
            total = [sum(column) for column in zip(*per_source.values(), strict=True)]
            rows[f"{split} all"] = [*total, sum(total)]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=[*class_names, "all"])
    return table.map("{:,}".format).to_string()


def describe(summary: Mapping[str, Any]) -> str:
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
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in sorted(summary["skipped"].items()))
        lines.append(
            f"skipped {sum(summary['skipped'].values()):,} rows ({reasons}), listed in {summary['out']}.skipped.csv"
        )
    lines.append(f"wrote {summary['out']}")
    return "\n".join(lines)


def command_for(data: Mapping[str, Any]) -> str:
    """Return the ``prepare.py`` command that makes the file of a ``data`` config."""
    wanted = ("affectnet", "fer2013") if data["name"] == "fer2021" else () if data["name"] == "sample" else ("raw",)
    paths = [f"data.{key}={shlex.quote(str(data[key])) if data[key] else 'PATH'}" for key in wanted]
    return " ".join(["python prepare.py", f"data={data['name']}", *paths])
