"""Which reader reads the raw files of a ``data`` config."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fer.data.preparation.own_source import checked
from fer.data.readers.affectnet import affectnet_source
from fer.data.readers.combine import MergedSource, MovedSource, PreparedSource
from fer.data.readers.fer2013 import fer2013_source
from fer.data.readers.image_folder import folder_source
from fer.data.readers.image_table import table_source
from fer.data.readers.yolo.source import yolo_source
from fer.data.source import OFFERED, OWN, FaceFormat, PhotoLimits, Source
from fer.data.storage.hdf5 import is_store, read_info
from fer.data.synthetic.dataset import draw_sample, is_drawn
from fer.data.synthetic.scenes import count_scenes, draw_scenes
from fer.errors import InputError
from fer.labels import CLASSES, CLASSES_WITH_CONTEMPT
from fer.targets import build, locate, takes


def open_source(data: Mapping[str, Any]) -> Source:
    """Return the reader of one ``data`` config (see ``conf/data``): where its raw files lie and how faces are cut.

    Raises:
        InputError: the raw files are not named, not there, or not what the reader expects.
    """
    if data.get("source"):
        return _built_source(data)
    name = data["name"]
    face = FaceFormat(data["size"], data["color"], data["margin"])
    limits = photo_limits(data)
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
        return affectnet_source(
            raw, face, limits, classes, val_fraction=data["val_fraction"], seed=data["seed"], name="drawn"
        )
    if name == "scenes":
        return _scenes(data, face, limits)
    raw = _raw(data, "raw")
    if name == "affectnet":
        return _affectnet(raw, data, face, limits, classes)
    if name == "fer2013":
        return _fer2013(raw, data, face, limits, classes)
    splits = data["val_fraction"], data["test_fraction"], data["seed"]
    if name == "folder":
        return folder_source(raw, face, limits, data["classes"], *splits, group=data.get("group"))
    if name == "yolo":
        images = Path(data["images"]).expanduser() if data["images"] else None
        return yolo_source(raw, face, limits, data["classes"], *splits, names=data["names"], images=images)
    return table_source(raw, face, limits, data["classes"], *splits)


def _built_source(data: Mapping[str, Any]) -> Source:
    """Return the reader that ``data.source`` names, built with what it takes of `OFFERED`."""
    target = data["source"]["_target_"]
    parameters = inspect.signature(locate(target, "data.source")).parameters
    given: dict[str, Any] = {
        "face": FaceFormat(data["size"], data["color"], data["margin"]), "limits": photo_limits(data),
        "seed": data["seed"],
    }  # fmt: skip
    given |= {key: _raw(data, key) if key == "raw" else data.get(key) for key in takes(target, OWN)}
    for key, value in given.items():
        if value is None and key in parameters and parameters[key].default is parameters[key].empty:
            raise InputError(f"data.{key} is not set: {target} needs it")
    arguments = {key: given[key] for key in takes(target, OFFERED) if given[key] is not None}
    source = build(data["source"], "data.source", **arguments)
    return source if target.startswith("fer.") else checked(source, given["face"])


def photo_limits(data: Mapping[str, Any]) -> PhotoLimits:
    """Return which photos a ``data`` config takes; one that was recorded before ``exif`` was there lacks it."""
    return PhotoLimits(data["min_bytes"], data["max_bytes"], data["max_pixels"], data.get("exif", "apply"))


def _draw(raw: Path, seed: int, photos: int) -> None:
    if not is_drawn(raw, seed, photos):
        with tqdm(total=photos, desc="draw", unit="photo") as bar:
            draw_sample(raw, seed, photos, lambda done, _: bar.update(done - bar.n))


def _scenes(data: Mapping[str, Any], face: FaceFormat, limits: PhotoLimits) -> Source:
    raw, faces = Path(data["raw"]).expanduser(), _raw(data, "faces")
    backgrounds = Path(data["backgrounds"]).expanduser() if data["backgrounds"] else None
    with tqdm(total=count_scenes(faces, data["photos"]), desc="draw", unit="scene") as bar:
        draw_scenes(raw, faces, data["photos"], data["seed"], backgrounds, bar.update)
    return yolo_source(raw, face, limits)


def _raw(data: Mapping[str, Any], key: str) -> Path:
    if not data[key]:
        raise InputError(f"data.{key} is not set: say where the raw files lie with data.{key}=PATH")
    path = Path(data[key]).expanduser()
    if not path.exists():
        raise InputError(f"data.{key}={path}: no such file or folder")
    return path


def _affectnet(
    raw: Path, data: Mapping[str, Any], face: FaceFormat, limits: PhotoLimits, classes: tuple[str, ...]
) -> Source:
    if raw.is_file():
        # a prepared file, or the original experiment's affectnet.csv or data.h5
        return PreparedSource(raw, face) if is_store(raw) else fer2013_source(raw, face, limits, classes, data["seed"])
    return affectnet_source(raw, face, limits, classes, val_fraction=data["val_fraction"], seed=data["seed"])


def _affectnet_to_train(
    raw: Path, data: Mapping[str, Any], face: FaceFormat, limits: PhotoLimits, classes: tuple[str, ...]
) -> Source:
    """Return all of AffectNet as training rows: the original experiment trains on its validation set too."""
    if raw.is_dir():
        return affectnet_source(raw, face, limits, classes, val_as=("train",))
    own_val = is_store(raw) and read_info(raw).made_by.get("val_fraction", 0) > 0
    # without a val split of its own, val and test are the same rows twice
    return MovedSource(
        _affectnet(raw, data, face, limits, classes), {"val": "train", "test": "train" if own_val else None}
    )


def _fer2013(
    raw: Path, data: Mapping[str, Any], face: FaceFormat, limits: PhotoLimits, classes: tuple[str, ...]
) -> Source:
    return PreparedSource(raw, face) if is_store(raw) else fer2013_source(raw, face, limits, classes, data["seed"])
