"""What a checkpoint or weight file says of its training, checked before anything is built from it."""

from typing import Any

from fer.data.source import FaceFormat
from fer.labels import labels_from_file
from fer.models.registry import OWN, TORCHVISION, require_trusted
from fer.targets import check_target

#: What a training is given and a checkpoint holds as ``hyper_parameters``; the last three may be missing.
HYPER_PARAMETERS = (
    "model", "labels", "face", "augment", "optimizer", "schedule", "epochs", "seed", "data", "recipe", "loss",
    "counts",
)  # fmt: skip


#: Ours, which checkpoints before 0.3 do not name.
AUGMENT = "fer.training.augment.Augment"

#: Targets of the networks that checkpoints before 0.3 knew by their library.
_LIBRARIES = {"fer": OWN, "torchvision": TORCHVISION}

#: The usual loss, and its arguments that stood in the recipe before 0.2, with the values of checkpoints without them.
CROSS_ENTROPY = "fer.training.losses.CrossEntropy"
_OF_THE_RECIPE = {"label_smoothing": 0.0, "class_weights": "none", "logit_adjustment": 0.0}


def upgraded(values: dict[str, Any]) -> dict[str, Any]:
    """Return hyper-parameters as this version has them; those of before had names where now are targets."""
    model = values["model"]
    if "_target_" not in model and model.get("library") in _LIBRARIES:
        model = {"_target_": _LIBRARIES[model["library"]]} | {k: v for k, v in model.items() if k != "library"}
    augment = {"_target_": AUGMENT} | values["augment"]
    recipe, loss = values.get("recipe") or {}, values.get("loss")
    if loss is None:
        loss = {"_target_": CROSS_ENTROPY} | {key: recipe.get(key, usual) for key, usual in _OF_THE_RECIPE.items()}
        recipe = {key: value for key, value in recipe.items() if key not in _OF_THE_RECIPE}
    return {**values, "model": model, "augment": augment, "recipe": recipe, "loss": loss}


def check_hyper_parameters(values: Any) -> dict[str, Any]:
    """Return the hyper-parameters that a file holds, if a classifier can be built and gone on with from them.

    What a network takes is checked as it is built.

    Raises:
        InputError: a target that the user does not trust.
        ValueError: naming the key that is missing, unknown, of another type or out of range.
    """
    if not isinstance(values, dict):
        raise ValueError("its hyper-parameters are no mapping")
    _require_plain(values)
    if unknown := values.keys() - set(HYPER_PARAMETERS):
        raise ValueError(f"unknown hyper-parameters {', '.join(sorted(map(str, unknown)))}")
    if missing := [name for name in HYPER_PARAMETERS[:-3] if name not in values]:
        raise ValueError(f"{missing[0]} is missing")
    labels_from_file(values["labels"])
    face = FaceFormat.from_file(values["face"])
    groups = {name: _group(values[name], name) for name in ("model", "augment", "optimizer", "schedule", "data")}
    _check_augment(groups["augment"], face.size)
    for name in ("recipe", "loss"):
        # what a loss takes is only asked of the config that a run goes on with
        if values.get(name) is not None:
            _group(values[name], name)
    model = upgraded(values)["model"]
    if "library" in model:
        raise ValueError(f"model.library={model['library']!r:.40} is not fer or torchvision")
    if not isinstance(model.get("_target_"), str):
        raise ValueError("model._target_ is missing")
    require_trusted(model)
    if "name" in model:
        _of(model, "model", "name", str)
    check_target(model, "model", ("num_classes",), offered=("download",))
    for key, kind in (("name", str), ("file", str), ("drawn", bool)):
        _of(groups["data"], "data", key, kind)
    _check_division(groups["data"])
    if "module" in groups["data"]:
        _of(groups["data"], "data", "module", str)
    for key in ("epochs", "seed"):
        _of(values, "", key, int)
    counts = values.get("counts")
    if counts is not None and not (isinstance(counts, list) and all(type(n) is int and n >= 0 for n in counts)):
        raise ValueError(f"counts={counts!r:.40} is not a list of numbers of faces")
    return values


def _check_augment(augment: dict[str, Any], size: int) -> None:
    """Check the crop that evaluation takes of it; what else an augmentation is, and whose, only a training needs."""
    target = augment.get("_target_", AUGMENT)
    if not isinstance(target, str):
        raise ValueError(f"augment._target_={target!r:.40} is not a name")
    if target != AUGMENT and augment.get("crop") is None:
        return
    crop = _of(augment, "augment", "crop", int)
    if not 1 <= crop <= size:
        raise ValueError(f"augment.crop={crop} does not fit face.size={size}")


def _require_plain(value: Any, name: str = "") -> None:
    """Raise ValueError where there is anything but words and numbers, in lists and mappings."""
    if isinstance(value, dict):
        for key, each in value.items():
            _require_plain(each, f"{name}.{key!s:.40}".lstrip("."))
    elif isinstance(value, list | tuple):
        for each in value:
            _require_plain(each, name)
    elif value is not None and not isinstance(value, bool | int | float | str):
        raise ValueError(f"{name} is of type {type(value).__name__}")


def _check_division(data: dict[str, Any]) -> None:
    """Check which fold of which a network was trained for, where it was for one."""
    if "folds" not in data:
        return
    if data["folds"] != "persons":
        _of(data, "data", "folds", int)
    for key in ("fold", "seed"):
        _of(data, "data", key, int)
    if data["fold"] < 0:
        raise ValueError(f"data.fold={data['fold']!r:.40} is not a number from 0 on")


def _group(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"{name}={value!r:.40} is no mapping")
    return value


def _of(group: dict[str, Any], name: str, key: str, kind: type) -> Any:
    """Return a value that is of one type, which a bool is not an int of."""
    full = f"{name}.{key}" if name else key
    if key not in group:
        raise ValueError(f"{full} is missing")
    if type(group[key]) is not kind:
        raise ValueError(f"{full}={group[key]!r:.40} is not of type {kind.__name__}")
    return group[key]
