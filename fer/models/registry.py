"""From what a config or a checkpoint says of a network to the network: targets, and which of them a file may name."""

import inspect
from typing import Any

from torch import nn

from fer.errors import InputError
from fer.models.networks import FaceNetwork
from fer.targets import build, is_trusted, locate, takes

#: Our functions that build networks; a checkpoint may name them, torch's modules and torchvision's networks.
OWN, TORCHVISION, TIMM = (
    "fer.models.networks.own_network",
    "fer.models.backbones.torchvision_network",
    "fer.models.timm_networks.timm_network",
)

#: Arguments by which networks fetch weights, and what they are when a checkpoint brings its own.
_FETCHING = {"download": False, "pretrained": False, "weights": None}


def build_network(
    model: dict[str, Any], num_classes: int, download: bool = True, channels: int | None = None
) -> FaceNetwork:
    """Build the network of a ``model`` config: ``_target_``, a callable(num_classes, ...), and its arguments.

    ``download=False`` leaves out the pretrained weights that it names, for a checkpoint that brings its own.
    ``channels`` are those of the faces, 1 or 3, by default 3; a network that says nothing of its own takes as many.

    Raises:
        InputError: no such target, or values that it refuses.
    """
    given: dict[str, Any] = {"num_classes": num_classes}
    if not download:
        # our own know the normalisation of weights that they don't fetch
        without = ["download"] if model["_target_"] in (OWN, TORCHVISION, TIMM) else _FETCHING
        given |= {key: _FETCHING[key] for key in takes(model["_target_"], without) if key == "download" or key in model}
    network = build({key: value for key, value in model.items() if key not in given}, "model", **given)
    return network if isinstance(network, FaceNetwork) else _wrapped(network, model, num_classes, channels or 3)


def network_name(model: dict[str, Any]) -> str:
    """Return what a network is called: its ``name``, or the last word of its target."""
    name = model.get("name")
    return name if isinstance(name, str) else str(model["_target_"]).rpartition(".")[2]


def _wrapped(network: Any, model: dict[str, Any], num_classes: int, channels: int) -> FaceNetwork:
    """Return a network that is not ours behind our contract."""
    if not isinstance(network, nn.Module):
        raise InputError(f"model._target_={model['_target_']}: gives {type(network).__name__}, not a torch.nn.Module")
    own = model.get("in_channels", getattr(network, "in_channels", channels))
    own = own if own in (1, 3) else channels
    head = _find_head(network, num_classes)
    return FaceNetwork(network, network_name(model), own, 1, head=head, classes=num_classes)


def _find_head(network: nn.Module, num_classes: int) -> str | None:
    """Return the name of the last layer with weights, where it is one that can give the logits."""
    layers = [(name, layer) for name, layer in network.named_modules() if list(layer.parameters(recurse=False))]
    name, last = layers[-1] if layers else ("", None)
    linear = isinstance(last, nn.Linear) and last.out_features == num_classes
    convolution = isinstance(last, nn.Conv2d) and last.kernel_size == (1, 1) and last.out_channels == num_classes
    return name if linear or convolution else None


def require_trusted(config: Any, key: str = "model") -> None:
    """Refuse targets of a checkpoint that could run anything; none is imported that is not trusted.

    Ours, modules of torch and networks of torchvision are let through, all others only where the user said so with
    `fer.targets.trusting`.

    Raises:
        InputError: naming the target and the remedy.
    """
    if isinstance(config, list | tuple):
        for number, each in enumerate(config):
            require_trusted(each, f"{key}.{number}")
        return
    if not isinstance(config, dict):
        return
    for name, value in config.items():
        require_trusted(value, f"{key}.{name}")
    target = config.get("_target_")
    if target is None:
        return
    if not isinstance(target, str):
        raise InputError(f"{key}._target_={target!r:.40} is not a name")
    if not (_is_known(target) or is_trusted(target)):
        package = target.split(".")[0]
        if package in ("fer", "torch", "torchvision", "timm"):
            raise InputError(f"{key}._target_={target:.80} is no network of {package}")
        raise InputError(
            f"{key}._target_={target:.80} is code of another package, which is not run unless you trust it: "
            f"give trust=[{package:.40}] if it is yours"
        )


def packages_to_trust(config: Any) -> list[str]:
    """Return the packages that `require_trusted` will ask for when a checkpoint of this config is read, sorted."""
    values = list(config.values()) if isinstance(config, dict) else config if isinstance(config, list | tuple) else []
    found = {package for value in values for package in packages_to_trust(value)}
    if isinstance(config, dict) and isinstance(target := config.get("_target_"), str) and not _is_known(target):
        found.add(target.split(".")[0])
    return sorted(found)


def _is_known(target: str) -> bool:
    return target in (OWN, TORCHVISION, TIMM) or _is_a_network(target)


def _is_a_network(target: str) -> bool:
    """Whether a target is a module of torch or a network of torchvision, which hold nothing but arithmetic."""
    if not target.startswith(("torch.nn.", "torchvision.models.")):
        return False
    found = locate(target, "model")
    if not str(getattr(found, "__module__", "")).startswith(("torch.nn.", "torchvision.models.")):
        return False
    if isinstance(found, type):
        return issubclass(found, nn.Module)
    # torchvision's functions state what they give
    returned = inspect.signature(found).return_annotation
    return isinstance(returned, type) and issubclass(returned, nn.Module)
