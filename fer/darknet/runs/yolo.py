"""A YOLO data set opened for a detector: where it lies, with what is written for it in a folder of the run."""

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock

from fer.darknet.formats.photo_folder import MARK, DarknetData, read_darknet, read_mark
from fer.darknet.formats.yolo_folder import write_yolo_folder
from fer.data.readers.yolo.dataset import yolo_of
from fer.errors import InputError
from fer.system.distributed import is_first_rank, started_ranks
from fer.system.files import replacing_folder

#: The folder in a run's that holds lists, names, and links with labels.
FOLDER = "data"


def open_yolo(data: Mapping[str, Any], run: Path, program: bool, kept: bool = True) -> DarknetData:
    """Return the data set of a checked ``data`` config, with what is written for it in ``run``/data.

    ``program`` tells that the darknet program will read it, ``kept`` that the folder stays, so that it is told of. What
    was written for the same data set before is taken.

    Raises:
        InputError: as `fer.data.readers.yolo.dataset.yolo_of` and `write_yolo_folder`, or a margin.
    """
    if data["margin"]:
        raise InputError(
            f"data.margin={data['margin']}: the boxes are taken as they are; `prepare format=darknet_detector` makes a "
            "folder with wider ones, for darknet.folder="
        )
    found = yolo_of(data)
    folder = run / FOLDER
    run.mkdir(parents=True, exist_ok=True)
    # ranks that torchrun or srun started are all here at once
    with FileLock(run / f".{FOLDER}.lock") if started_ranks() > 1 else nullcontext():
        if not _is_of(folder, found.fingerprint()):
            with replacing_folder(folder, _require_ours) as new:
                write_yolo_folder(found, new, folder, data, program)
    if is_first_rank():
        mark = read_mark(folder) or {}
        print("\n".join([*found.describe(), *([str(mark.get("said"))] if kept else [])]))
    return read_darknet(folder)


def _is_of(folder: Path, fingerprint: str) -> bool:
    mark = read_mark(folder) if folder.is_dir() else None
    return mark is not None and mark.get("fingerprint") == fingerprint


def _require_ours(folder: Path) -> None:
    if folder.exists() and not (folder / MARK).is_file():
        raise InputError(f"{folder}: holds something that is no part of this run: give another hydra.run.dir=FOLDER")
