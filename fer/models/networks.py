"""Networks as tables and one builder: VGG and ResNet for small faces, and the door to torchvision's backbones."""

import difflib
from collections.abc import Sequence

import torch
import torchvision
from torch import Tensor, nn

from fer.errors import InputError

#: Widths of the 3x3 convolutions; "M" is a 2x2 max-pool (Simonyan & Zisserman 2014, tables A, B, D, E).
#: ``vgg_small`` is the demo's network, ``vgg9`` one for CPUs.
VGG = {
    "vgg11": [64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"],
    "vgg13": [64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"],
    "vgg16": [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"],
    "vgg19": [64, 64, "M", 128, 128, "M", *[256] * 4, "M", *[512] * 4, "M", *[512] * 4, "M"],
    "vgg9": [32, 32, "M", 64, 64, "M", 128, 128, "M", 256, 256, "M"],
    "vgg_small": [32, "M", 64, "M", 128, "M", 128, "M"],
}

#: Kind of residual block and blocks per stage (He et al. 2015, table 1).
RESNET = {
    "resnet18": ("basic", [2, 2, 2, 2]),
    "resnet34": ("basic", [3, 4, 6, 3]),
    "resnet50": ("bottleneck", [3, 4, 6, 3]),
}

# Heads that give extra logits in training mode, which nothing here trains.
_AUXILIARY_HEADS = {"googlenet": ("aux1", "aux2"), "inception_v3": ("AuxLogits",)}
# Attention over a grid whose size is part of the network.
_FIXED_SIZE = ("vit_", "maxvit_")
# torchvision states the size of training as these networks' smallest, but they pad any size to whole windows.
_ANY_SIZE = ("swin_",)


class FaceNetwork(nn.Module):
    """A network behind one contract: float images in [0, 1], (N, C, H, W) with C = 1 or 3, to logits (N, classes).

    Grey images are repeated to the network's channels. ``mean`` and ``std`` (one value per channel, for values in
    [0, 1]) are part of ``state_dict``, so a checkpoint brings its own normalisation; without them there is none.

    Raises:
        InputError: RGB images into a one-channel network, or images of a size (pixels) that it cannot take.
    """

    def __init__(
        self,
        network: nn.Module,
        name: str,
        in_channels: int,
        smallest: int,
        largest: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.name = name
        self.in_channels = in_channels
        self.smallest = smallest
        self.largest = largest
        self.register_buffer("mean", None if mean is None else torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", None if std is None else torch.tensor(std, dtype=torch.float32).view(-1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        channels, height, width = images.shape[1:]
        if channels != self.in_channels:
            if channels != 1:
                raise InputError(
                    f"{self.name} was built for {self.in_channels} channel(s) and got images with {channels}: "
                    "set in_channels=3, or prepare the data in grey"
                )
            images = images.expand(-1, self.in_channels, -1, -1)
        if min(height, width) < self.smallest or (self.largest and max(height, width) > self.largest):
            limits = f"exactly {self.largest}" if self.largest else f"at least {self.smallest}"
            raise InputError(
                f"{self.name} needs images of {limits} pixels a side, not {width}x{height} (after cropping): "
                "prepare the data at another size or choose another model"
            )
        if self.mean is not None:
            images = (images - self.mean) / self.std
        return self.network(images)


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
) -> nn.Module:
    """Return the network called ``name``: a key of ``VGG`` or ``RESNET``, or "torchvision" for any of its backbones.

    Every network ends in dropout with probability ``dropout`` and one new linear layer (squeezenet: 1x1 convolution)
    for ``num_classes``. ``backbone`` and ``weights`` go with "torchvision" only: a classification network of
    torchvision, and one of its sets of weights ("DEFAULT", "IMAGENET1K_V1", ...), which also gives ``mean`` and
    ``std`` where they are not given. ``download=False`` builds that same network without fetching its weights, for a
    checkpoint that replaces them. Input, ``in_channels`` and ``mean``/``std``: see ``FaceNetwork``.

    Raises:
        InputError: an unknown name, backbone or weights; values that do not fit together; a failed download.
    """
    names = [*VGG, *RESNET, "torchvision"]
    if name not in names:
        raise InputError(f"unknown model name={name!r}; valid: {', '.join(names)}{_hint_at_torchvision(name)}")
    if num_classes < 2:
        raise InputError(f"num_classes={num_classes}: a classifier needs at least 2")
    if not 0 <= dropout < 1:
        raise InputError(f"dropout={dropout} is not in [0, 1)")
    if in_channels not in (1, 3):
        raise InputError(f"in_channels={in_channels}: must be 1 (grey) or 3 (RGB, or grey repeated)")
    if name != "torchvision":
        if backbone is not None or weights is not None:
            raise InputError(f"backbone and weights are for name=torchvision, not for {name}: leave them out")
        _check_normalisation(mean, std, in_channels)
        build, smallest = (_vgg, 2 ** VGG[name].count("M")) if name in VGG else (_resnet, 1)
        return FaceNetwork(build(name, num_classes, in_channels, dropout), name, in_channels, smallest, None, mean, std)
    if in_channels != 3:
        raise InputError(f"in_channels={in_channels}: torchvision's networks take 3 (grey images are repeated)")
    _check_normalisation(mean, std, in_channels)
    return _torchvision(num_classes, dropout, backbone, weights, mean, std, download)


def _check_normalisation(mean: Sequence[float] | None, std: Sequence[float] | None, in_channels: int) -> None:
    if (mean is None) != (std is None):
        raise InputError("mean and std go together: give both or neither")
    if mean is not None and (len(mean) != in_channels or len(std) != in_channels or min(std) <= 0):
        raise InputError(f"mean={list(mean)}, std={list(std)}: must be {in_channels} value(s) each, std above 0")


def _vgg(name: str, num_classes: int, in_channels: int, dropout: float) -> nn.Module:
    layers: list[nn.Module] = []
    channels = in_channels
    for width in VGG[name]:
        if width == "M":
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            channels = width
    return nn.Sequential(*layers, *_head(channels, num_classes, dropout))


def _head(channels: int, num_classes: int, dropout: float) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(channels, num_classes)]


def _resnet(name: str, num_classes: int, in_channels: int, dropout: float) -> nn.Module:
    kind, stages = RESNET[name]
    channels = 64
    # The stem for small pictures: no stride and no max-pool (He et al. 2015, section 4.2).
    layers: list[nn.Module] = [*_conv_norm(in_channels, channels, 3), nn.ReLU(inplace=True)]
    for stage, blocks in enumerate(stages):
        width = 64 * 2**stage
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            residual = _Residual(kind, channels, width, stride)
            layers.append(residual)
            channels = residual.out_channels
    return nn.Sequential(*layers, *_head(channels, num_classes, dropout))


class _Residual(nn.Module):
    """relu(branch(x) + shortcut(x)), the shortcut a 1x1 projection where the shape changes."""

    def __init__(self, kind: str, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        if kind == "basic":
            self.out_channels = width
            convolutions = [(in_channels, width, 3, stride), (width, width, 3, 1)]
        else:
            self.out_channels = 4 * width
            convolutions = [(in_channels, width, 1, 1), (width, width, 3, stride), (width, 4 * width, 1, 1)]
        branch: list[nn.Module] = []
        for convolution in convolutions:
            branch += [*_conv_norm(*convolution), nn.ReLU(inplace=True)]
        self.branch = nn.Sequential(*branch[:-1])
        same_shape = stride == 1 and in_channels == self.out_channels
        projection = () if same_shape else _conv_norm(in_channels, self.out_channels, 1, stride)
        self.shortcut = nn.Sequential(*projection)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu_(self.branch(x) + self.shortcut(x))


def _conv_norm(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    # The bias would be cancelled by batch norm's mean.
    convolution = nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)
    return [convolution, nn.BatchNorm2d(out_channels)]


def _torchvision(
    num_classes: int,
    dropout: float,
    backbone: str | None,
    weights: str | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    download: bool,
) -> nn.Module:
    backbones = torchvision.models.list_models(module=torchvision.models)
    if backbone not in backbones:
        close = difflib.get_close_matches(str(backbone), backbones, n=5)
        raise InputError(
            f"unknown torchvision backbone={backbone!r}; valid: {', '.join(close or backbones)}"
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
    arguments = {"transform_input": False, "init_weights": False} if backbone in _AUXILIARY_HEADS else {}
    largest = None
    smallest = 1 if backbone.startswith(_ANY_SIZE) else known["DEFAULT"].meta["min_size"][0]
    if backbone.startswith(_FIXED_SIZE):
        smallest = largest = chosen.meta["min_size"][0] if chosen else 224
        arguments = {"image_size": largest} if backbone.startswith("vit_") else {}
    try:
        network = torchvision.models.get_model(backbone, weights=chosen if download else None, **arguments)
    except OSError as error:
        raise InputError(
            f"could not fetch {chosen.url} ({error}): put that file into {torch.hub.get_dir()}/checkpoints, "
            "or leave weights out"
        ) from error
    for head in _AUXILIARY_HEADS.get(backbone, ()):
        network.aux_logits = False
        setattr(network, head, None)
    _replace_head(network, backbone, num_classes, dropout)
    return FaceNetwork(network, backbone, 3, smallest, largest, mean, std)


def _replace_head(network: nn.Module, backbone: str, num_classes: int, dropout: float) -> None:
    weighted = [(path, layer) for path, layer in network.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    path, old = weighted[-1]
    bias = old.bias is not None
    if isinstance(old, nn.Linear):
        new = nn.Linear(old.in_features, num_classes, bias)
    elif old.kernel_size == (1, 1):
        new = nn.Conv2d(old.in_channels, num_classes, 1, bias=bias)
    else:
        raise InputError(f"backbone={backbone} does not end in a linear layer or a 1x1 convolution: choose another")
    parent_path, _, key = path.rpartition(".")
    parent = network.get_submodule(parent_path)
    layers = list(parent.children())
    before = layers[layers.index(old) - 1] if layers[0] is not old else None
    if isinstance(before, nn.Dropout):
        before.p = dropout
        setattr(parent, key, new)
    else:
        setattr(parent, key, nn.Sequential(nn.Dropout(dropout), new))


def _hint_at_torchvision(name: str) -> str:
    is_backbone = name in torchvision.models.list_models(module=torchvision.models)
    return f"; torchvision has it: name=torchvision backbone={name}" if is_backbone else ""
