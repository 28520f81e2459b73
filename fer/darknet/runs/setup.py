"""What every training run begins with, in either engine: the net, the folder of photos, and the run's facts."""

import hashlib
import shutil
from pathlib import Path
from typing import Any

from fer.darknet.design.anchors import kmeans_anchors
from fer.darknet.design.architectures import recipe
from fer.darknet.design.fit import check, fit
from fer.darknet.formats.cfg import Section, read_cfg
from fer.darknet.formats.export import export
from fer.darknet.formats.label_files import read_labels, require_plain_labels
from fer.darknet.formats.photo_folder import (
    DarknetData,
    darknet_command,
    darknet_folder,
    read_darknet,
    read_list,
    read_mark,
)
from fer.darknet.formats.run_folder import judged_by
from fer.darknet.formats.section import positive
from fer.darknet.formats.weights import find_cfg, weights_bytes
from fer.darknet.runs.yolo import open_yolo
from fer.data.preparation.summary import describe, drawn_otherwise
from fer.errors import InputError
from fer.system.files import claiming

#: The score that chooses the best checkpoint, by task.
METRIC = {"detector": "val/map50", "classifier": "val/top1"}


def detector_metrics(scores: dict[str, Any]) -> dict[str, float]:
    """Return what an engine's ``detector_map`` says under the names of a run's metrics."""
    return {"val/map50": scores["map"]} | {f"val/ap/{row['name']}": row["ap"] for row in scores["per_class"]}


def read_sections(options: dict[str, Any]) -> tuple[list[Section], str]:
    """Return the net of a recipe or a .cfg file, and its name up to the first dot, which the program calls files by."""
    if options["name"] != "custom":
        return recipe(options["name"]), options["name"]
    path = Path(options["cfg"] or "")
    if not options["cfg"]:
        raise InputError("darknet.cfg is not set: darknet=custom trains the net of darknet.cfg=FILE.cfg")
    if not path.is_file():
        raise InputError(f"darknet.cfg={path}: no such file")
    return read_cfg(path), path.name.split(".")[0]


def open_dataset(config: dict[str, Any], task: str, out: Path) -> DarknetData:
    """Return the exported folder of a config, drawn data made where they are not there yet.

    A YOLO data set is used where it lies; what the program needs of it is written in the run's folder ``out``.
    """
    options, data = config["darknet"], config["data"]
    if data["name"] == "yolo" and task == "detector" and not options["folder"]:
        return _require_photos(open_yolo(data, out, options["engine"] == "binary"), f"data.raw={data['raw']}")
    if task == "detector" and not options["folder"] and data["name"] in ("fer2013", "fer2021", "folder"):
        raise InputError(
            f"data={data['name']} has no boxes of faces: a detector needs data=affectnet, or csv with boxes"
        )
    crop = (options["crop"] if task == "classifier" else None) or "photo"
    folder = Path(options["folder"]) if options["folder"] else darknet_folder(data, task, crop)
    if not folder.exists() and data["name"] in ("sample", "scenes") and not options["folder"]:
        print(f"{folder} is not there yet: making it")
        with claiming(folder, "wait for it to end"):
            print(describe(export(data, folder, task, crop)))
    if not folder.exists():
        raise InputError(f"{folder}: no such folder; make it with `{darknet_command(data, task, crop)}`")
    dataset = read_darknet(folder)
    if note := drawn_otherwise(data, (read_mark(folder) or {}).get("made_by", {}), folder):
        print(note)
    if dataset.task != task:
        raise InputError(f"{folder} is made for a {dataset.task}, but darknet={options['name']} is a {task}")
    _require_photos(dataset, str(folder))
    if task == "detector":
        # the program trains on without a word where one of them makes no sense
        for photo in read_list(dataset.lists["train"]):
            read_labels(photo.with_suffix(".txt"), len(dataset.names))
        if options["engine"] == "binary":
            # with its own -map it reads those of the photos that it scores, too
            judged = read_list(dataset.lists[judged_by(dataset)]) if options["map"] else []
            for photo in [*read_list(dataset.lists["train"]), *judged]:
                require_plain_labels(photo.with_suffix(".txt"))
    return dataset


def _require_photos(dataset: DarknetData, where: str) -> DarknetData:
    if not dataset.photos.get("train") or not dataset.photos.get(judged_by(dataset)):
        raise InputError(f"{where} has no photos to train on, or none to score checkpoints on")
    return dataset


def fit_to_data(sections: list[Section], options: dict[str, Any], data: DarknetData) -> list[Section]:
    """Return the net made to fit the data and the options."""
    classes, photos = len(data.names), data.photos["train"]
    if options["anchors"] == "kmeans":
        heads = [section for section in sections if section.kind == "yolo"]
        if not heads:
            raise InputError("darknet.anchors=kmeans: the net has no [yolo], which has anchors: set it to null")
        sized = fit(sections, options | {"anchors": None}, classes, photos)
        labels = [photo.with_suffix(".txt") for photo in read_list(data.lists["train"])]
        size = positive(sized[0], "width"), positive(sized[0], "height")
        anchors, overlap = kmeans_anchors(labels, size, positive(heads[0], "num", 1))
        print(f"anchors by k-means on {len(labels):,} photos: mean best IoU {overlap:.3f}")
        options = options | {"anchors": [value for pair in anchors for value in pair]}
    fitted = fit(sections, options, classes, photos)
    check(fitted, classes)
    return fitted


def pretrained_source(options: dict[str, Any]) -> Path | None:
    """Return the file of ``darknet.pretrained``, None without one.

    Raises:
        InputError: it is not there, or layers are to be cut of none.
    """
    if not options["pretrained"]:
        if options["pretrained_layers"]:
            raise InputError("darknet.pretrained_layers needs darknet.pretrained=FILE.weights, which it cuts")
        return None
    source = Path(options["pretrained"])
    if not source.is_file():
        raise InputError(f"darknet.pretrained={source}: no such file")
    return source


def pretrained_cfg(options: dict[str, Any], source: Path) -> Path:
    """Return the .cfg that pre-trained weights belong to, as given or found beside them.

    Raises:
        InputError: there is none.
    """
    cfg = Path(options["pretrained_cfg"]) if options["pretrained_cfg"] else find_cfg(source, "darknet.pretrained_cfg")
    if not cfg.is_file():
        raise InputError(f"darknet.pretrained_cfg={cfg}: no such file")
    return cfg


def require_disk_space(out: Path, sections: list[Section], files: int = 4) -> None:
    """Refuse a disk without room for so many weights files."""
    need, free = files * weights_bytes(sections), shutil.disk_usage(out).free
    if free < need:
        raise InputError(f"{out}: {free >> 20:,} MiB free, but its weights files take {need >> 20:,} MiB: make room")


def run_facts(config: dict[str, Any], program: str, data: DarknetData, name: str) -> dict[str, Any]:
    """Return what run.json says of a run; ``program`` is the dialect that trains it, or torch."""
    options = config["darknet"]
    listed = hashlib.blake2b((data.folder / "photos.csv").read_bytes(), digest_size=16)
    return {
        "name": name, "task": data.task, "data": data.data, "folder": str(data.folder.absolute()), "drawn": data.drawn,
        "fingerprint": listed.hexdigest(), "class_names": list(data.class_names), "program": program,
        "judged_by": judged_by(data),
        "pretrained": options["pretrained"] and Path(options["pretrained"]).name,
        "pretrained_layers": options["pretrained_layers"], "resume": config["resume"],
    }  # fmt: skip
