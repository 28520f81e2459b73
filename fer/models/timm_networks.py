"""The door to timm's classification networks, each with a new head for our classes."""

import difflib
import warnings
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from fer.errors import InputError
from fer.models.networks import FaceNetwork, check_arguments

#: What timm calls our arguments, of which each network takes some.
_THEIRS = {"dropout": "drop_rate", "drop_path": "drop_path_rate", "image_size": "img_size"}


def timm_network(
    num_classes: int,
    name: str,
    pretrained: bool = False,
    in_channels: int = 3,
    dropout: float = 0.0,
    drop_path: float = 0.0,
    image_size: int | None = None,
    mean: list[float] | None = None,
    std: list[float] | None = None,
    download: bool = True,
) -> FaceNetwork:
    """Return a classification network of timm with a fresh head.

    ``name`` may end in a tag of pretrained weights ("convnext_tiny.fb_in22k"). ``pretrained`` weights also give
    ``mean`` and ``std`` where they are not given. ``drop_path`` is the rate of stochastic depth. ``image_size`` (pixels
    a side) is for networks that are built for one size, by default the one that timm states. ``download=False`` builds
    that same network without fetching its weights, for a checkpoint that replaces them. Input and ``mean``/``std``: see
    `FaceNetwork`.

    Raises:
        InputError: timm is not installed; an unknown name; an argument that the network does not take; values that do
            not fit together; a failed download.
    """
    check_arguments(num_classes, in_channels, dropout, mean, std)
    if not 0 <= drop_path < 1:
        raise InputError(f"drop_path={drop_path} is not in [0, 1)")
    if image_size is not None and image_size < 1:
        raise InputError(f"image_size={image_size} is not a number of pixels")
    timm = _timm()
    known = _known(timm, name, pretrained)
    if pretrained and mean is None:
        mean, std = _of_channels(known.mean, in_channels), _of_channels(known.std, in_channels)
    given = {"dropout": dropout, "drop_path": drop_path, "image_size": image_size}
    # what timm adds to modules has no types
    network: Any = _create(timm, name, pretrained and download, num_classes, in_channels, given)
    size = image_size or network.pretrained_cfg["input_size"][-1]
    if not network.pretrained_cfg.get("fixed_input_size"):
        smallest = (network.pretrained_cfg.get("min_input_size") or (1,))[-1]
        return _Sized(network, name, in_channels, smallest, None, mean, std, head=_heads(network, num_classes))
    remedy = "prepare the data at another size or choose another model"
    if image_size is None and _takes(timm, name, num_classes, in_channels, image_size=size):
        remedy = "give model.image_size= the size of the faces after cropping"
    return _Sized(network, name, in_channels, size, size, mean, std, head=_heads(network, num_classes), remedy=remedy)


class _Sized(FaceNetwork):
    """A network that seldom takes, or can be built for, each size: how it divides a picture shows only as it does."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._taken: set[tuple[int, ...]] = set()

    def forward(self, images: Tensor) -> Tensor:
        size = tuple(images.shape[2:])
        if torch.compiler.is_compiling() or size in self._taken:
            return super().forward(images)
        try:
            logits = super().forward(images)
        except (InputError, torch.OutOfMemoryError, torch.AcceleratorError):
            raise
        except (RuntimeError, AssertionError, ValueError, IndexError) as error:
            said = " ".join(str(error).split())[:200] or type(error).__name__
            raise InputError(
                f"{self.name} cannot take images of {size[1]}x{size[0]} pixels, after cropping ({said}): "
                "prepare the data at another size or choose another model"
            ) from error
        self._taken.add(size)
        return logits


def _timm() -> ModuleType:
    try:
        import timm
    except ModuleNotFoundError as error:
        raise InputError('model=timm needs the package timm: pip install ".[timm]"') from error
    return timm


def _known(timm: ModuleType, name: str, pretrained: bool) -> Any:
    """Return what timm states of a network, and of its weights where they are asked for.

    Only plain names pass: timm would take "hf-hub:..." and folders too, which a checkpoint must not make it open.
    """
    architecture, _, tag = str(name).partition(".")
    names = timm.list_models()
    if architecture not in names:
        if renamed := timm.models.get_deprecated_models().get(architecture):
            raise InputError(f"timm has renamed name={name!r}: give {renamed}")
        close = difflib.get_close_matches(architecture, names, n=5)
        shown = f"valid: {', '.join(close)}, or another name" if close else "valid: a name"
        raise InputError(f"unknown timm name={name!r}; {shown} from timm.list_models()")
    tags = [each for each in timm.list_pretrained(f"{architecture}*") if each.partition(".")[0] == architecture]
    if tag and name not in timm.list_models(f"{architecture}.*", include_tags=True):
        raise InputError(f"unknown weights name={name!r}; valid: {', '.join(tags) or architecture}")
    if pretrained and not timm.models.is_model_pretrained(name):
        has = f"give name={' or '.join(tags)}" if tags else "give pretrained=false"
        raise InputError(f"timm has no pretrained weights of name={name}: {has}")
    return timm.get_pretrained_cfg(name)


def _of_channels(values: Sequence[float], channels: int) -> list[float]:
    # timm sums the first layer's weights over red, green and blue for grey, which then is scaled by their mean
    return list(values) if channels == len(values) else [sum(values) / len(values)] * channels


def _create(
    timm: ModuleType, name: str, pretrained: bool, num_classes: int, in_channels: int, given: dict[str, Any]
) -> nn.Module:
    """Build a network of timm, with those of our arguments that say something."""
    arguments = {_THEIRS[key]: value for key, value in given.items() if value}
    try:
        with warnings.catch_warnings():
            # of timm about itself
            warnings.simplefilter("ignore")
            return timm.create_model(
                name, pretrained=pretrained, num_classes=num_classes, in_chans=in_channels, **arguments
            )
    except Exception as error:
        # networks check their arguments with assert, or not at all, and the download raises what its library does
        said = " ".join(str(error).split())[:200] or type(error).__name__
        for key, value in given.items():
            if value and not _takes(timm, name, num_classes, in_channels, **{key: value}):
                raise InputError(f"{key}={value}: {name} of timm does not take it ({said}); leave {key} out") from error
        if pretrained:
            raise InputError(
                f"could not fetch the pretrained weights of {name} ({said}): try again with a connection, fill the "
                "cache of huggingface_hub on a machine that has one, or give pretrained=false"
            ) from error
        raise InputError(f"{name} of timm cannot be built so ({said}): choose another name or other values") from error


def _takes(timm: ModuleType, name: str, num_classes: int, in_channels: int, **given: Any) -> bool:
    """Whether a network can be built with these arguments; no weights are made."""
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            arguments = {_THEIRS[key]: value for key, value in given.items()}
            timm.create_model(name, num_classes=num_classes, in_chans=in_channels, **arguments)
    except Exception:
        return False
    return True


def _heads(network: Any, num_classes: int) -> tuple[str, ...]:
    """Return the names of the layers that give a logit a class; distilled networks have several and mean them."""
    found = network.get_classifier()
    classifiers = list(found) if isinstance(found, tuple) else [found]
    # what timm replaces for other classes, of which get_classifier leaves out the auxiliary ones
    stated = network.pretrained_cfg.get("classifier") or ()
    stated = (stated,) if isinstance(stated, str) else stated
    modules = dict(network.named_modules())
    classifiers += [modules[name] for name in stated if name in modules]
    within = {id(layer) for module in classifiers if isinstance(module, nn.Module) for layer in module.modules()}
    return tuple(name for name, layer in modules.items() if id(layer) in within and _is_last(layer, num_classes))


def _is_last(layer: nn.Module, num_classes: int) -> bool:
    if isinstance(layer, nn.Linear):
        return layer.out_features == num_classes
    return isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.out_channels == num_classes
