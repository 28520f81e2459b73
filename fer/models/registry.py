"""Names to networks: our own, and any classification network of torchvision."""

from collections.abc import Sequence
from typing import Any

from fer.errors import InputError
from fer.models.networks import RESNET, VGG, FaceNetwork, build_own


def build_model(
    name: str,
    num_classes: int,
    in_channels: int = 3,
    dropout: float = 0.5,
    backbone: str | None = None,
    weights: str | None = None,
    mean: list[float] | None = None,
    std: list[float] | None = None,
    download: bool = True,
) -> FaceNetwork:
    """Return the network called ``name``: a key of ``VGG`` or ``RESNET``, or "torchvision" for any of its backbones.

    Every network ends in dropout with probability ``dropout`` and one new linear layer (squeezenet: 1x1 convolution)
    for ``num_classes``. ``backbone`` and ``weights`` go with "torchvision" only: a classification network of
    torchvision, and one of its sets of weights ("DEFAULT", "IMAGENET1K_V1", ...), which also gives ``mean`` and
    ``std`` where they are not given. ``download=False`` builds that same network without fetching its weights, for a
    checkpoint that replaces them. Input, ``in_channels`` and ``mean``/``std``: see ``FaceNetwork``.

    Raises:
        InputError: an unknown name, backbone or weights; values that do not fit together; a failed download.
    """
    own = name in VGG or name in RESNET
    if not own and name != "torchvision":
        names = ", ".join([*VGG, *RESNET, "torchvision"])
        raise InputError(f"unknown model name={name!r}; valid: {names}{_hint_at_torchvision(name)}")
    if num_classes < 2:
        raise InputError(f"num_classes={num_classes}: a classifier needs at least 2")
    if not 0 <= dropout < 1:
        raise InputError(f"dropout={dropout} is not in [0, 1)")
    if in_channels not in (1, 3):
        raise InputError(f"in_channels={in_channels}: must be 1 (grey) or 3 (RGB, or grey repeated)")
    if own and (backbone is not None or weights is not None):
        raise InputError(f"backbone and weights are for name=torchvision, not for {name}: leave them out")
    if not own and in_channels != 3:
        raise InputError(f"in_channels={in_channels}: torchvision's networks take 3 (grey images are repeated)")
    _check_normalisation(mean, std, in_channels)
    if own:
        return build_own(name, num_classes, in_channels, dropout, mean, std)
    # here, as it has a thousand modules that our own networks do not need
    from fer.models.backbones import build_backbone

    return build_backbone(backbone, num_classes, dropout, weights, mean, std, download)


def build_network(model: dict[str, Any], num_classes: int, download: bool = True) -> FaceNetwork:
    """Build the network of a checked ``model`` config (``library`` fer or torchvision)."""
    arguments = {key: value for key, value in model.items() if key not in ("library", "name")}
    if model["library"] == "fer":
        return build_model(model["name"], num_classes, **arguments)
    return build_model("torchvision", num_classes, backbone=model["name"], download=download, **arguments)


def _check_normalisation(mean: Sequence[float] | None, std: Sequence[float] | None, in_channels: int) -> None:
    if mean is None and std is None:
        return
    if mean is None or std is None:
        raise InputError("mean and std go together: give both or neither")
    if len(mean) != in_channels or len(std) != in_channels or min(std) <= 0:
        raise InputError(f"mean={list(mean)}, std={list(std)}: must be {in_channels} value(s) each, std above 0")


def _hint_at_torchvision(name: str) -> str:
    from fer.models.backbones import names

    return f"; torchvision has it: name=torchvision backbone={name}" if name in names() else ""
