"""A YOLO data set, used where it lies, as the folder that the program and every score read: lists, names, tables.

A list holds a photo's own path where every program finds its labels there and reads them right; else that of a link in
the folder, with the checked labels beside it. Nothing is written anywhere else.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fer.darknet.formats.lists import Entry, write_lists, write_photos_csv
from fer.darknet.formats.photo_folder import LABEL_PATH_TRAPS, LIST_ENDING, MARK, check_path
from fer.data.readers.yolo.dataset import YoloDataset, YoloPhoto, write_faults
from fer.errors import InputError
from fer.labels import canonical
from fer.system.words import amount

#: The table of what is amiss, beside the lists.
FAULTS_FILE = "faults.csv"
# What the programs' own decoder reads, and endings that Debian's finds label files for.
_READ = (".jpg", ".jpeg", ".png", ".bmp")
_ENDINGS = (".jpg", ".png", ".JPG", ".JPEG")


def write_yolo_folder(data: YoloDataset, folder: Path, final: Path, config: Mapping[str, Any], program: bool) -> None:
    """Write what `read_darknet` reads into ``folder``, which will be ``final``; ``said`` in darknet.json tells of it.

    Photos of which a label is lost are left out. ``config`` is the ``data`` config; ``program`` tells that the darknet
    program will read it.

    Raises:
        InputError: no photo is left, or the program would misread a path or a photo.
    """
    final = final.absolute()
    entries: list[Entry] = []
    links = 0
    for photo, splits in data.photos().values():
        if photo.labels.lost:
            continue
        if program and not photo.file.lower().endswith(_READ):
            raise InputError(f"{photo.file}: the darknet program reads JPEG, PNG and BMP: give darknet.engine=torch")
        file = photo.file
        if not _as_it_is(photo):
            # the decoders go by what is in the file
            ending = ".jpg" if file.lower().endswith((".jpg", ".jpeg")) else ".png"
            file = f"photos/{links // 1000:03d}/{links:07d}{ending}"
            links += 1
            _link(photo, f"{folder}/{file}")
        labels = photo.labels.boxes[:, 0].astype(int).tolist()
        entries.append(Entry(file, data.title, photo.path, splits, labels))
    if not entries:
        raise InputError(f"data.raw={data.raw}: no photo is left to learn from: {'; '.join(data.describe()[-3:])}")
    if links and program:
        check_path(final / "photos", "detector", data.names, "hydra.run.dir=FOLDER")
    class_names = class_names_of(data)
    lists = write_lists(folder, str(final), "detector", data.names, entries)
    write_photos_csv(folder, class_names, entries)
    if data.faults:
        write_faults(folder / FAULTS_FILE, data.faults)
    own = len(entries) - links
    said = amount(own, "photo is read by its own path", "photos are read by their own paths")
    said += f", {links:,} by links with checked labels beside them, in {final}"
    if data.faults:
        said += f"; {amount(len(data.faults), 'fault is', 'faults are')} listed in {final / FAULTS_FILE}"
    mark = {
        "task": "detector", "names": data.names, "class_names": class_names, "folder": str(final),
        "lists": {split: split + LIST_ENDING["detector"] for split in lists}, "photos": lists, "data": config["name"],
        "drawn": False, "crop": "photo", "made_by": dict(config), "fingerprint": data.fingerprint(), "said": said,
    }  # fmt: skip
    (folder / MARK).write_text(json.dumps(mark, indent=1) + "\n")


def class_names_of(data: YoloDataset) -> list[str]:
    """Return our names of the classes, by the ids of the labels; where two would be one, the data set's own."""
    ours = [canonical(name) or name for name in data.names]
    return ours if len(set(ours)) == len(ours) else list(data.names)


def _as_it_is(photo: YoloPhoto) -> bool:
    """Say whether every program finds the label file of a photo by its path, and reads in it what is meant."""
    stem, ending = os.path.splitext(photo.file)
    return (
        photo.label_file == f"{stem}.txt"
        and photo.labels.plain
        and ending in _ENDINGS
        and not any(trap in stem for trap in LABEL_PATH_TRAPS)
        and photo.file == photo.file.strip()
        and len(photo.file.splitlines()) == 1
    )


def _link(photo: YoloPhoto, path: str) -> None:
    try:
        os.symlink(photo.file, path)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path))
        os.symlink(photo.file, path)
    labels = photo.labels.boxes.tolist()
    lines = [f"{int(label)} {' '.join(f'{value:.8g}' for value in box)}\n" for label, *box in labels]
    with open(f"{os.path.splitext(path)[0]}.txt", "wb", buffering=0) as file:
        file.write("".join(lines).encode())
