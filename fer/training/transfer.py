"""What a run takes from earlier ones: weights to start from, a run to go on with, teachers."""

from dataclasses import asdict
from typing import Any

import torch
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from fer.engines import CHECKPOINT, suffix_of
from fer.errors import InputError
from fer.labels import require_same
from fer.models.checkpoint import inherit, is_plain, load_checkpoint
from fer.models.classifier import EmotionClassifier
from fer.models.registry import OWN, TIMM, TORCHVISION
from fer.training.distillation import Teachers

#: How the names of files end that others save a network's tensors in.
_STATE_FILES = (".pt", ".pth")

#: What such a file calls its tensors where it holds more.
_STATE_KEYS = ("state_dict", "model_state_dict", "model", "net", "backbone")

#: Groups that a run may have otherwise when it begins from weights alone.
_KEPT = ("optimizer", "schedule")

#: What wrappers put before the names of tensors.
_PREFIXES = ("module.", "model.", "backbone.", "encoder.", "net.", "network.")


def start_from(model: EmotionClassifier, checkpoint: str) -> None:
    """Copy the weights of a checkpoint, weight file or shipped network's name into a classifier.

    The last layer keeps its fresh ones where the classes differ. Of a .pt or .pth file, a plain state dict of somebody
    else's, those are taken that fit by name and shape; which classes its last layer stands for it does not say.

    Raises:
        InputError: a weight other than the last layer's has another shape or name: it is another network. Of a plain
            state dict fewer than half of the network's tensors fit.
    """
    if suffix_of(checkpoint) in _STATE_FILES:
        _start_from_state(model, checkpoint)
        return
    source = load_checkpoint(checkpoint)
    weights, own = source.net.state_dict(), model.net.state_dict()
    if source.labels != model.labels:
        weights |= {name: own[name] for name in model.net.head_state()}
    wrong = [name for name in own if name not in weights or weights[name].shape != own[name].shape]
    if wrong or len(own) != len(weights):
        held = {key: value for key, value in source.hyper_parameters["model"].items() if value is not None}
        kind = {OWN: source.name, TORCHVISION: "torchvision", TIMM: "timm"}.get(held["_target_"], "custom")
        left = {OWN: ("_target_", "name"), TORCHVISION: ("_target_", "weights")}.get(held["_target_"], ())
        give = " ".join(f"model.{key}={value}" for key, value in held.items() if key not in left)
        raise InputError(
            f"init={checkpoint}: holds a {source.name}, which does not fit model={model.name}: give model={kind} {give}"
        )
    model.net.load_state_dict(weights)
    inherit(model, source)


def _start_from_state(model: EmotionClassifier, path: str) -> None:
    """Copy what fits of a plain state dict, and say in one line how much that is."""
    given = _read_state(path)
    head = {name.removeprefix("network.") for name in model.net.head_state()}
    own = {name: values for name, values in model.net.network.state_dict().items() if name not in head}
    fitting: dict[str, str] = {}
    for name, values in given.items():
        for short in _shortened(name):
            same = short in own and own[short].shape == values.shape
            if same and own[short].is_floating_point() == values.is_floating_point():
                if short in fitting:
                    raise InputError(f"init={path}: both {fitting[short]} and {name} are {short}: keep one of them")
                fitting[short] = name
                break
    left = [name for name in given if name not in fitting.values()]
    said = f"{len(fitting)} of the {len(own)} tensors of {model.name} before its last layer fit"
    said += f"; not used of the file: {_some(left)}" if left else ""
    if fresh := [name for name in own if name not in fitting]:
        said += f"; fresh in the network: {_some(fresh)}"
    if 2 * len(fitting) < len(own):
        raise InputError(f"init={path}: only {said}: choose the network that the file was saved from")
    for name in fitting.values():
        if not given[name].isfinite().all():
            raise InputError(f"init={path}: {name} has values that are NaN or infinite; give another file")
    model.net.network.load_state_dict({short: given[name] for short, name in fitting.items()}, strict=False)
    rank_zero_only(print)(f"init={path}: {said}")


def _read_state(path: str) -> dict[str, Tensor]:
    """Return the tensors of a file by name; code that it may hold is not run."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"init={path}: no such file") from error
    except Exception as error:  # torch's readers raise many types on foreign bytes
        raise InputError(
            f"init={path}: not a file of tensors alone, and nothing else is read as it could run code: "
            "save the network's state_dict() with torch.save"
        ) from error
    if isinstance(content, dict):
        inner = next((content[key] for key in _STATE_KEYS if isinstance(content.get(key), dict)), content)
        state = {name: values for name, values in inner.items() if isinstance(name, str) and is_plain(values)}
        if state:
            return state
    raise InputError(f"init={path}: holds no tensors by name: save the network's state_dict() with torch.save")


def _shortened(name: str) -> list[str]:
    """Return a tensor's name, and what is left of it after each of its prefixes."""
    names = [name]
    while prefix := next((prefix for prefix in _PREFIXES if names[-1].startswith(prefix)), ""):
        names.append(names[-1].removeprefix(prefix))
    return names


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def require_same_model(source: EmotionClassifier, model: EmotionClassifier, config: dict[str, Any]) -> None:
    """Refuse to resume a run of other classes, another network, recipe, loss, optimiser or schedule.

    The optimiser and the schedule go on with the numbers of the checkpoint: other ones would be left unused.
    """
    if suffix_of(config["resume"]) != CHECKPOINT:
        raise InputError(f"resume={config['resume']}: no run to go on with; start from its weights with init=")
    data = config["data"].get("_target_") or config["data"]["file"]
    require_same(source.labels, model.labels, config["resume"], data)
    for group in ("model", "recipe", "loss", "optimizer", "schedule"):
        held = source.hyper_parameters.get(group) or {}
        # a key that a loss had not is another loss; the others may have gained some
        for key in held | (config[group] if group == "loss" else {}):
            if config[group].get(key) != (value := held.get(key)):
                anew = f", or start from its weights with init={config['resume']}" if group in _KEPT else ""
                raise InputError(
                    f"resume={config['resume']}: was trained with {group}.{key}={value}, not {config[group].get(key)}; "
                    f"give the command of that run again{anew}"
                )


def load_teachers(recipe: dict[str, Any], student: EmotionClassifier) -> Teachers:
    """Open the networks that a student learns from.

    Raises:
        InputError: one of them has other classes or was trained on faces of another format.
    """
    nets = []
    for path in recipe["teachers"]:
        teacher = load_checkpoint(path)
        if teacher.labels != student.labels:
            raise InputError(
                f"recipe.teachers: {path} names {', '.join(teacher.labels)}, the data {', '.join(student.labels)}: "
                "give teachers of the same classes in the same order"
            )
        for key, wanted in asdict(student.face).items():
            if (given := getattr(teacher.face, key)) != wanted:
                raise InputError(
                    f"recipe.teachers: {path} was trained with data.{key}={given}, not {wanted}: "
                    "give teachers of the same faces"
                )
        inherit(student, teacher)
        nets.append(teacher.net)
    return Teachers(nets, recipe["teacher_temperature"])
