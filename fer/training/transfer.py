"""What a run takes from earlier ones: weights to start from, a run to go on with, teachers."""

from dataclasses import asdict
from typing import Any

from fer.engines import CHECKPOINT, suffix_of
from fer.errors import InputError
from fer.labels import require_same
from fer.models.checkpoint import inherit, load_checkpoint
from fer.models.classifier import EmotionClassifier
from fer.models.registry import OWN, TIMM, TORCHVISION
from fer.training.distillation import Teachers


def start_from(model: EmotionClassifier, checkpoint: str) -> None:
    """Copy the weights of a checkpoint, weight file or shipped network's name into a classifier.

    The last layer keeps its fresh ones where the classes differ.

    Raises:
        InputError: a weight other than the last layer's has another shape or name: it is another network.
    """
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


def require_same_model(source: EmotionClassifier, model: EmotionClassifier, config: dict[str, Any]) -> None:
    """Refuse to resume a run of other classes, another network or another recipe."""
    if suffix_of(config["resume"]) != CHECKPOINT:
        raise InputError(f"resume={config['resume']}: no run to go on with; start from its weights with init=")
    require_same(source.labels, model.labels, config["resume"], config["data"]["file"])
    for group in ("model", "recipe"):
        for key, value in (source.hyper_parameters.get(group) or {}).items():
            if config[group].get(key) != value:
                raise InputError(
                    f"resume={config['resume']}: was trained with {group}.{key}={value}, not {config[group].get(key)}; "
                    "give the command of that run again"
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
