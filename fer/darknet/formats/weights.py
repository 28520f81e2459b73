"""Darknet's .weights files: what is in them, whether they are whole, and the cfg and names that belong to them."""

import os
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from fer.darknet.formats.cfg import Section, classes_of, layers, read_cfg, task_of
from fer.errors import InputError


@dataclass(frozen=True, slots=True)
class Header:
    """The head of a .weights file: version, images seen in training, and its own length in bytes, 16 or 20."""

    major: int
    minor: int
    revision: int
    seen: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Net:
    """A trained network: whole weights, the cfg they belong to, parsed, and the class names in the net's order."""

    weights: Path
    cfg: Path
    names: tuple[str, ...]
    sections: list[Section]
    task: str


def read_header(path: Path) -> Header:
    """Return the header of a .weights file: int32 major, minor, revision, then seen as uint64 (uint32 before 0.2).

    Raises:
        InputError: no such file, or one that is shorter than a header.
    """
    return _header_and_size(path)[0]


def weights_bytes(sections: Sequence[Section], first: int | None = None) -> int:
    """Return the bytes of a file that holds the whole net, or its ``first`` layers, as today's programs write it."""
    return 20 + 4 * sum(layer.floats for layer in layers(sections)[:first])


def whole_layers(path: Path, sections: Sequence[Section]) -> int:
    """Return how many of the net's first layers a file holds; layers without weights count with the one before them.

    So 11 layers cut for v3_tiny count as 12, as its layer 11 is a pooling; the program says the same.

    Raises:
        InputError: no such file, or one that ends inside a layer or goes on after the last, with the sizes in bytes.
    """
    header, size = _header_and_size(path)
    parsed = layers(sections)
    ends = [header.bytes + 4 * floats for floats in accumulate(layer.floats for layer in parsed)]
    if size not in ends:
        expected = f"the whole net has {ends[-1]:,} bytes"
        if size > ends[-1]:
            raise InputError(f"{path}: {size:,} bytes, but {expected}: these weights belong to another cfg")
        inside = next(index for index, end in enumerate(ends) if end > size)
        raise InputError(
            f"{path}: {size:,} bytes end inside layer {inside}, which ends at {ends[inside]:,}; {expected}: "
            "the file was cut short or belongs to another cfg"
        )
    return len(parsed) - ends[::-1].index(size)


def is_whole(path: Path, sections: Sequence[Section]) -> bool:
    """Return whether a file holds all of the net; False while the program, which saves in place, is writing it."""
    return _images_seen(path, weights_bytes(sections)) is not None


def newest_whole(folder: Path, base: str, sections: Sequence[Section]) -> Path | None:
    """Return the whole file that has seen most images among those the program saves to resume from, None without one.

    ``base`` is the cfg's name up to the first dot. Debian's program saves base.backup, base_N.weights and base.weights
    or base_final.weights, AlexeyAB's base_last, base_N, base_best and base_final.weights.
    """
    name = re.compile(re.escape(base) + r"(\.backup|(_(last|best|final|\d+))?\.weights)")
    need, candidates = weights_bytes(sections), []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if name.fullmatch(path.name) and (seen := _images_seen(path, need)) is not None:
            # the copy of the best checkpoint has seen as many images as the checkpoint, which is the one to name
            candidates.append((seen, "_best." not in path.name, path))
    return max(candidates)[-1] if candidates else None


def find_resume_weights(resume: str, base: str, sections: Sequence[Section]) -> Path:
    """Return the weights to go on with: a file, or the newest whole one of a run folder or its backup folder.

    Raises:
        InputError: there is none, or it is not whole.
    """
    path = Path(resume)
    if path.is_dir():
        folder = backup_folder(path)
        newest = newest_whole(folder, base, sections)
        if newest is None:
            raise InputError(
                f"resume={resume}: no whole weights file of {base} in {folder}; the program saves the first after 100 "
                "iterations, start the run again"
            )
        return newest
    if not path.is_file():
        raise InputError(f"resume={resume}: no such file or folder")
    if (count := whole_layers(path, sections)) < len(layers(sections)):
        whole = len(layers(sections))
        raise InputError(f"resume={resume}: holds {count} of {whole} layers; start with darknet.pretrained={resume}")
    return path


def backup_folder(run: Path) -> Path:
    """Return the folder of a run that holds its weights, which may be the one given."""
    return run / "backup" if (run / "backup").is_dir() else run


def saved_iteration(weights: Path, sections: Sequence[Section]) -> int:
    """Return the iteration that a weights file was saved at, as the program counts: images seen over the batch."""
    return read_header(weights).seen // int(sections[0].options["batch"])


def find_cfg(weights: Path, key: str = "darknet.cfg") -> Path:
    """Return the .cfg that weights belong to: the one whose name they begin with, else the only one.

    It is looked for beside the weights and one folder up; ``key`` is how the user can name it.

    Raises:
        InputError: there is none, or more than one.
    """
    for folder in _folders(weights):
        cfgs = sorted(folder.glob("*.cfg"))
        belonging = [cfg for cfg in cfgs if re.match(re.escape(_base(cfg)) + r"[_.]", weights.name)]
        # of v4 and v4_tiny, weights called v4_tiny_last belong to the longer
        longest = max((len(_base(cfg)) for cfg in belonging), default=0)
        candidates = [cfg for cfg in belonging if len(_base(cfg)) == longest] or cfgs
        if len(candidates) == 1:
            return candidates[0]
        if candidates:
            names = ", ".join(cfg.name for cfg in candidates)
            raise InputError(f"{weights}: {names} in {folder} could belong to it; set {key}=FILE.cfg")
    raise InputError(f"{weights}: no .cfg beside it or one folder up; set {key}=FILE.cfg")


def find_names(weights: Path, task: str) -> Path:
    """Return the file of class names beside the weights or one folder up: emotion.names or labels.txt.

    Raises:
        InputError: there is none, or several .names.
    """
    for folder in _folders(weights):
        usual = [folder / name for name in ("emotion.names", "labels.txt") if (folder / name).is_file()]
        if usual:
            return usual[-1 if task == "classifier" else 0]
        others = sorted(folder.glob("*.names"))
        if len(others) == 1:
            return others[0]
        if others:
            raise InputError(f"{weights}: several .names in {folder}; set darknet.names=FILE.names")
    raise InputError(f"{weights}: no .names or labels.txt beside it or one folder up; set darknet.names=FILE.names")


def open_net(weights: Path, cfg: Path | None = None, names: Path | None = None) -> Net:
    """Return a trained net, its cfg and names found beside the weights or one folder up unless they are given.

    Raises:
        InputError: a file is missing, weights that are not the whole net of the cfg, or names of another number.
    """
    if not weights.is_file():
        raise InputError(f"{weights}: no such file")
    cfg = cfg or find_cfg(weights)
    if not cfg.is_file():
        raise InputError(f"darknet.cfg={cfg}: no such file")
    sections = read_cfg(cfg)
    task = task_of(sections)
    loaded, count = whole_layers(weights, sections), len(layers(sections))
    if loaded < count:
        raise InputError(
            f"{weights}: holds the first {loaded} of {count} layers of {cfg}, to start a training from only"
        )
    names = names or find_names(weights, task)
    if not names.is_file():
        raise InputError(f"darknet.names={names}: no such file")
    text = names.read_text("utf-8-sig", errors="replace")
    lines = tuple(line.strip() for line in text.splitlines() if line.strip())
    if odd := [line for line in lines if not line.isprintable() or lines.count(line) > 1]:
        raise InputError(f"{names}: {odd[0]!a:.40} is twice there or no text, so it is no class of its own")
    if len(lines) != classes_of(sections):
        raise InputError(f"{names}: {len(lines)} names, but {cfg} has {classes_of(sections)} classes")
    return Net(weights, cfg, lines, sections, task)


def open_configured_net(ckpt: str, options: Mapping[str, Any]) -> Net:
    """Return `open_net` of a weights file with the ``cfg`` and ``names`` of a ``darknet`` config, where they are given.

    Raises:
        InputError: as `open_net`.
    """
    cfg, names = (Path(options[key]) if options[key] else None for key in ("cfg", "names"))
    return open_net(Path(ckpt), cfg, names)


def _base(cfg: Path) -> str:
    return cfg.name.split(".")[0]


def _folders(weights: Path) -> tuple[Path, Path]:
    folder = weights.absolute().parent
    return folder, folder.parent


def _images_seen(path: Path, need: int) -> int | None:
    """Return the images seen where a file has ``need`` bytes, counted with a header of today, else None."""
    try:
        header, size = _header_and_size(path)
    except InputError:
        return None
    return header.seen if size == need - 20 + header.bytes else None


def _header_and_size(path: Path) -> tuple[Header, int]:
    """Read both from one open file, as the program may replace it meanwhile."""
    try:
        with path.open("rb") as file:
            head, size = file.read(20), os.fstat(file.fileno()).st_size
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if len(head) >= 16:
        major, minor, revision = struct.unpack("<3i", head[:12])
        if major * 10 + minor < 2:
            (seen,) = struct.unpack("<I", head[12:16])
            return Header(major, minor, revision, seen, 16), size
        if len(head) == 20:
            (seen,) = struct.unpack("<Q", head[12:])
            return Header(major, minor, revision, seen, 20), size
    raise InputError(f"{path}: {size} bytes are no .weights file")
