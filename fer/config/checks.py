"""The checks of what every entry point takes, data and its own keys."""

import inspect
from types import FunctionType
from typing import Any

from omegaconf import DictConfig, OmegaConf

from fer.config.plain import choose, plain, shown, typed
from fer.config.schemas import DATA, Faces, ModuleData, Predict, SourceData
from fer.data.source import MOST_FOLDS, OFFERED, OWN
from fer.engines import is_darknet, resolve
from fer.errors import InputError
from fer.targets import check_target, locate, takes

#: Characters of a tag.
_LONGEST_TAG = 64


def augmented_crop_size(size: int) -> int:
    """Return the crop in pixels for images of ``size`` pixels: 44 of 48, to the nearest even number.

    Even, so that the centre crop of an even size has the same margin on both sides.

    >>> [augmented_crop_size(size) for size in (48, 96, 224)]
    [44, 88, 206]
    """
    return 2 * ((size * 11 + 12) // 24)


OmegaConf.register_new_resolver("face_crop", augmented_crop_size, replace=True)


def _run_name(*, _root_: DictConfig) -> str:
    """Return what a run is called: its data and its network, ours or a Darknet net, or the last word of a target."""
    # a group that is none is refused afterwards
    data, model, darknet = ({**(_root_.get(group) or {})} for group in ("data", "model", "darknet"))
    network = darknet.get("name", "none")
    if network == "none":
        network = model.get("name") or str(model.get("_target_")).rpartition(".")[2]
    return f"{data.get('name')}_{network}"


OmegaConf.register_new_resolver("run_name", _run_name, replace=True)


def check_data(data: DictConfig) -> dict[str, Any]:
    """Check one ``data`` group and return it as plain data.

    Raises:
        InputError: an unknown key, or a value of the wrong type or out of range.
    """
    given = plain(data, "data")
    if "_target_" in given:
        raise InputError(
            f"data._target_={given['_target_']}: a data module is trained on and nothing else: give data=NAME of a "
            "prepared file"
        )
    source = given.get("source")
    config = typed(data, SourceData if source else choose(data, "name", DATA, "data"), "data")
    if source:
        _check_source(config)
    _check_format(config)
    if config["keep"] not in ("auto", "device", "memory", "disk"):
        raise InputError(f"data.keep={config['keep']}: not auto, device, memory or disk")
    if config["exif"] not in ("apply", "ignore"):
        raise InputError(f"data.exif={config['exif']}: not apply or ignore")
    check_seed(config["seed"], "data.seed")
    for key in ("val_fraction", "test_fraction"):
        if not 0 <= (config.get(key) or 0) < 1:
            raise InputError(f"data.{key}={config[key]}: not a fraction between 0 and 1")
    _check_folds(config["folds"], config["fold"])
    names = config.get("names")
    if names is not None and not isinstance(names, str | list) or isinstance(names, list) and not _are_texts(names):
        raise InputError(f"data.names={names!s:.80}: not a file of class names, one a line, or a list [NAME,NAME]")
    return config


def _are_texts(values: list[Any]) -> bool:
    return bool(values) and all(isinstance(value, str) and value for value in values)


def check_training_data(data: DictConfig) -> dict[str, Any]:
    """Check a ``data`` group that is trained on: as `check_data`, or the target of a data module and its arguments.

    Raises:
        InputError: an unknown key, or a value of the wrong type or out of range.
    """
    config = plain(data, "data")
    if "_target_" not in config:
        return check_data(data)
    from pytorch_lightning import LightningDataModule

    from fer.data.loading.contract import OFFERED, OWN

    if config["_target_"] == "???":
        raise InputError("data._target_ is missing: it names the data module, as data._target_=my_data.MyDataModule")
    own = {key: value for key, value in config.items() if key not in OWN}
    check_target(own, "data", base=LightningDataModule, offered=OFFERED)
    keys = {key: value for key, value in config.items() if key in OWN}
    keys.setdefault("name", config["_target_"].rpartition(".")[2])
    return own | _check_format(typed(OmegaConf.create(keys), ModuleData, "data"))


def _check_format(config: dict[str, Any]) -> dict[str, Any]:
    if config["color"] not in ("grey", "rgb"):
        raise InputError(f"data.color={config['color']}: not grey or rgb")
    if not 8 <= config["size"] <= 1024:
        raise InputError(f"data.size={config['size']}: not between 8 and 1024 pixels")
    if not 0 <= config["margin"] <= 2:
        raise InputError(f"data.margin={config['margin']}: not a fraction of the box between 0 and 2")
    return config


def check_seed(seed: int, key: str = "seed") -> None:
    """Refuse a seed that a generator of random numbers does not take."""
    if not 0 <= seed < 2**32:
        raise InputError(f"{key}={shown(seed)} is not between 0 and {2**32 - 1}")


def _check_source(config: dict[str, Any]) -> None:
    """Refuse a reader that there is none of, arguments that it lacks, and keys beside it that it does not take."""
    source = config["source"]
    if not isinstance(source, dict):
        raise InputError(f"data.source={source}: not a group of keys, of which _target_ names a reader")
    if source.get("_target_") == "???":
        raise InputError(
            "data.source._target_ is missing: it names the reader, as data.source._target_=my_readers.MyData"
        )
    check_target(source, "data.source", offered=OFFERED)
    taken = takes(source["_target_"], OWN)
    for key in OWN:
        if config[key] is not None and key not in taken:
            raise InputError(
                f"data.{key}={config[key]} has no effect: {source['_target_']} takes no such argument; leave it out"
            )


def _check_folds(folds: Any, fold: int | None) -> None:
    if folds is None:
        if fold is not None:
            raise InputError(f"data.fold={fold} needs data.folds, how many there are: a number, or persons")
        return
    if folds != "persons" and (type(folds) is not int or not 2 <= folds <= MOST_FOLDS):
        raise InputError(f"data.folds={folds}: not a number of folds from 2 to {MOST_FOLDS:,}, or persons")
    if fold is not None and not 0 <= fold < (folds if isinstance(folds, int) else fold + 1):
        raise InputError(f"data.fold={fold}: not one of the folds 0..{folds - 1 if isinstance(folds, int) else '...'}")


def check_predict(cfg: DictConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """Check the config of predict.py and return its own keys and its ``faces`` group as plain data.

    Raises:
        InputError: an unknown key, a value of the wrong type or out of range, or two keys that exclude each other.
    """
    keys, faces = check_keys(cfg, Predict), check_faces(cfg.faces)
    for key in ("source", "ckpt"):
        if not keys[key]:
            raise InputError(
                f"{key} is not set: give source=PHOTO_OR_FOLDER_OR_VIDEO and ckpt=NAME, FILE.ckpt, FILE.safetensors, "
                "FILE.onnx or FILE.weights"
            )
    for key, most in (("every_n", 10_000), ("search_every", 10_000), ("batch", 4096)):
        if not 1 <= keys[key] <= most:
            raise InputError(f"{key}={shown(keys[key])}: not a number of 1 to {most:,}")
    if not 0 <= keys["smooth"] < 1:
        raise InputError(f"smooth={keys['smooth']}: not a weight of 0 (off) to below 1")
    if keys["min_confidence"] is not None and not 0 <= keys["min_confidence"] <= 1:
        raise InputError(f"min_confidence={keys['min_confidence']} is not a probability")
    if keys["anonymize"] and keys["explain"]:
        raise InputError("explain=true draws faces, anonymize=true hides them: give one of them")
    if keys["layer"] and not keys["explain"]:
        raise InputError(f"layer={keys['layer']} is what explain=true shows: give both")
    if keys["margin"] is not None and not 0 <= keys["margin"] <= 2:
        raise InputError(f"margin={keys['margin']}: not a fraction of the box between 0 and 2")
    if keys["explain"] and keys["classes"] is not None:
        raise InputError("explain=true shows all of the network's classes: leave classes= out")
    if is_darknet(keys["ckpt"]):
        if keys["embed"]:
            raise InputError("embed=true: not for the .weights of a Darknet net, which gives no embeddings")
        for key in ("margin", "tta", "classes") if cfg.darknet.get("engine") != "torch" else ():
            if keys[key] not in (None, False):
                raise InputError(f"{key}={keys[key]}: not for the darknet program; darknet.engine=torch may have it")
        for key in ("explain",) if cfg.darknet.get("engine") == "torch" else ("explain", "show"):
            if keys[key]:
                raise InputError(
                    f"{key}=true: not for the .weights of a Darknet net; show=true with darknet.engine=torch"
                )
    return keys, faces


def check_faces(faces: DictConfig) -> dict[str, Any]:
    """Check the ``faces`` group, a detector of ours or a target, and return it as plain data.

    Raises:
        InputError: an unknown key, a value of the wrong type, or a target that there is not.
    """
    given = plain(faces, "faces")
    if "_target_" not in given:
        return typed(faces, Faces, "faces")
    if given["_target_"] != "???" and not given.get("_partial_"):
        _require_maker(given)
    return check_target(given, "faces")


def _require_maker(faces: dict[str, Any]) -> None:
    """Refuse a function that is the detector itself, which is to be called with pictures, where it is not said so."""
    function = locate(faces["_target_"], "faces")
    if not isinstance(function, FunctionType):
        return
    needed = [p.name for p in inspect.signature(function).parameters.values() if p.default is p.empty]
    if len(needed) == 1 and needed[0] not in faces and needed[0] in ("picture", "image", "img", "frame", "photo"):
        raise InputError(
            f"faces._target_={faces['_target_']}: is called without a {needed[0]}, to give the detector; of a function "
            "that is the detector itself say faces._partial_=true"
        )


def check_labels(tags: Any, notes: Any) -> None:
    """Check what a run is to be found by.

    Raises:
        InputError: tags are no list of short words, or notes no text.
    """
    if tags is not None and not isinstance(tags, list):
        raise InputError(f"tags={tags}: not a list: give tags=[{tags}]")
    for tag in tags or ():
        if not isinstance(tag, str):
            raise InputError(f"tags: {tag!r} is not text: give tags=[WORD,WORD], a number in quotes within quotes")
        if not 0 < len(tag) <= _LONGEST_TAG or not tag.isprintable():
            raise InputError(f"tags: {tag!r:.80} is not a word of 1 to {_LONGEST_TAG} characters")
    if not isinstance(notes, str | None):
        raise InputError(f"notes={notes}: not text: give 'notes=SOME TEXT'")


def check_keys(cfg: DictConfig, schema: type) -> dict[str, Any]:
    """Check the top-level keys of an entry point; the groups have checks of their own."""
    rest = {key: value for key, value in plain(cfg).items() if key not in ("data", "darknet", "faces")}
    keys = typed(OmegaConf.create(rest), schema, "")
    if isinstance(keys.get("ckpt"), str):
        keys["ckpt"] = resolve(keys["ckpt"])
    return keys
