"""The door to torchvision's classification networks, each with a new head for our classes."""

import difflib
from typing import Any

import torch
import torchvision
from torch import nn

from fer.errors import InputError
from fer.models.networks import FaceNetwork, check_arguments

# Heads that give extra logits in training mode, which nothing here trains.
_AUXILIARY_HEADS = {"googlenet": ("aux1", "aux2"), "inception_v3": ("AuxLogits",)}


# Attention over a grid whose size is part of the network.
_FIXED_SIZE = ("vit_", "maxvit_")


# torchvision states the size of training as these networks' smallest, but they pad any size to whole windows.
_ANY_SIZE = ("swin_",)


def names() -> list[str]:
    """Return the names of all backbones."""
    return torchvision.models.list_models(module=torchvision.models)


def torchvision_network(
    num_classes: int,
    name: str,
    weights: str | None = None,
    in_channels: int = 3,
    dropout: float = 0.0,
    mean: list[float] | None = None,
    std: list[float] | None = None,
    download: bool = True,
) -> FaceNetwork:
    """Return a classification network of torchvision with a new head: dropout and one linear layer or 1x1 convolution.

    ``weights`` is one of its sets of weights ("DEFAULT", "IMAGENET1K_V1", ...), which also gives ``mean`` and ``std``
    where they are not given. ``download=False`` builds that same network without fetching its weights, for a checkpoint
    that replaces them. Input and ``mean``/``std``: see `FaceNetwork`.

    Raises:
        InputError: an unknown name or weights; values that do not fit together; a failed download.
    """
    check_arguments(num_classes, in_channels, dropout, mean, std)
    if in_channels != 3:
        raise InputError(f"in_channels={in_channels}: torchvision's networks take 3 (grey images are repeated)")
    backbone, backbones = name, names()
    if backbone not in backbones:
        close = difflib.get_close_matches(str(backbone), backbones, n=5)
        raise InputError(
            f"unknown torchvision name={backbone!r}; valid: {', '.join(close or backbones)}"
            + (", or another name from torchvision.models.list_models()" if close else "")
        )
    # Weights without categories are for detectors: their classifier is filled with NaN.
    known = {
        key: value
        for key, value in torchvision.models.get_model_weights(backbone).__members__.items()
        if value.meta["categories"]
    }
    if weights is not None and weights not in known:
        raise InputError(f"unknown weights={weights!r} for {backbone}; valid: {', '.join(known)}, or null for none")
    chosen = None if weights is None else known[weights]
    if chosen and mean is None:
        preset = chosen.transforms()
        # These two were trained with 0.5; transform_input, off below, would convert from ImageNet's mean and std.
        mean, std = (preset.mean, preset.std) if backbone not in _AUXILIARY_HEADS else ([0.5] * 3, [0.5] * 3)
    arguments: dict[str, Any] = {}
    if backbone in _AUXILIARY_HEADS:
        arguments = {"transform_input": False, "init_weights": False}
    largest: int | None = None
    smallest = 1 if backbone.startswith(_ANY_SIZE) else known["DEFAULT"].meta["min_size"][0]
    if backbone.startswith(_FIXED_SIZE):
        smallest = largest = chosen.meta["min_size"][0] if chosen else 224
        arguments = {"image_size": largest} if backbone.startswith("vit_") else {}
    try:
        network = torchvision.models.get_model(backbone, weights=chosen if download else None, **arguments)
    except OSError as error:
        url = chosen.url if chosen else backbone
        raise InputError(
            f"could not fetch {url} ({error}): put that file into {torch.hub.get_dir()}/checkpoints, "
            "or leave weights out"
        ) from error
    for head in _AUXILIARY_HEADS.get(backbone, ()):
        network.aux_logits = False
        setattr(network, head, None)
    head = _replace_head(network, backbone, num_classes, dropout)
    return FaceNetwork(network, backbone, 3, smallest, largest, mean, std, head=head)


def _replace_head(network: nn.Module, backbone: str, num_classes: int, dropout: float) -> str:
    """Put dropout and a new last layer in the place of the old last layer; return the new one's name."""
    path, old = [pair for pair in network.named_modules() if isinstance(pair[1], nn.Linear | nn.Conv2d)][-1]
    new = _like(old, num_classes, backbone)
    parent_path, _, key = path.rpartition(".")
    parent = network.get_submodule(parent_path)
    layers = list(parent.children())
    before = layers[layers.index(old) - 1] if layers[0] is not old else None
    if isinstance(before, nn.Dropout):
        before.p = dropout
        setattr(parent, key, new)
        return path
    setattr(parent, key, nn.Sequential(nn.Dropout(dropout), new))
    return f"{path}.1"


def _like(old: nn.Module, num_classes: int, backbone: str) -> nn.Module:
    """Return a new layer in the place of an old last one, with a bias if that has one."""
    if isinstance(old, nn.Linear):
        return nn.Linear(old.in_features, num_classes, old.bias is not None)
    if isinstance(old, nn.Conv2d) and old.kernel_size == (1, 1):
        return nn.Conv2d(old.in_channels, num_classes, 1, bias=old.bias is not None)
    raise InputError(f"name={backbone} does not end in a linear layer or a 1x1 convolution: choose another")
