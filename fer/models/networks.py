"""Networks for faces behind one contract, and our own: VGG and ResNet for small pictures, as tables."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fer.errors import InputError, closest

#: Widths of the 3x3 convolutions; "M" is a 2x2 max-pool (Simonyan & Zisserman 2014, tables A, B, D, E).
#: ``vgg_small`` is the demo's network, ``vgg9`` one for CPUs, and ``vgg9_wide`` has half as many channels again.
VGG: dict[str, list[int | str]] = {
    "vgg11": [64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"],
    "vgg13": [64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"],
    "vgg16": [64, 64, "M", 128, 128, "M", 256, 256, 256, "M", 512, 512, 512, "M", 512, 512, 512, "M"],
    "vgg19": [64, 64, "M", 128, 128, "M", *[256] * 4, "M", *[512] * 4, "M", *[512] * 4, "M"],
    "vgg9": [32, 32, "M", 64, 64, "M", 128, 128, "M", 256, 256, "M"],
    "vgg9_wide": [48, 48, "M", 96, 96, "M", 192, 192, "M", 384, 384, "M"],
    "vgg_small": [32, "M", 64, "M", 128, "M", 128, "M"],
}

#: Kind of residual block and blocks per stage (He et al. 2015, table 1).
RESNET = {
    "resnet18": ("basic", [2, 2, 2, 2]),
    "resnet34": ("basic", [3, 4, 6, 3]),
    "resnet50": ("bottleneck", [3, 4, 6, 3]),
}


class FaceNetwork(nn.Module):
    """A network behind one contract: float images in [0, 1], (N, C, H, W) with C = 1 or 3, to logits (N, classes).

    Grey images are repeated to the network's channels.

    Args:
        network: the module that does the work.
        name: what the network is called.
        in_channels: 1 or 3, the channels that ``network`` takes.
        smallest: the smallest side in pixels of an image that it takes.
        largest: the largest one; None: there is no limit.
        mean: one value per channel, for values in [0, 1]. Part of ``state_dict``, so that a checkpoint brings its own
            normalisation. None: no normalisation.
        std: likewise.
        head: the name of the submodule that gives the logits: the last linear layer or 1x1 convolution, after which
            comes at most a mean over the map. Several where the logits are their sum or mean. None: not known.
        remedy: the end of the line about images of a wrong size.
        classes: how many logits a network of a user's must give. None: it is not checked.

    Raises:
        InputError: RGB images into a one-channel network, images of a size (pixels) that it cannot take, or what it
            gives is no float tensor (N, ``classes``).
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(
        self,
        network: nn.Module,
        name: str,
        in_channels: int,
        smallest: int,
        largest: int | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        *,
        head: str | tuple[str, ...] | None,
        remedy: str = "prepare the data at another size or choose another model",
        classes: int | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self._classes = classes
        self._heads = (head,) if isinstance(head, str) else head or ()
        self._remedy = remedy
        self.name = name
        self.in_channels = in_channels
        self.smallest = smallest
        self.largest = largest
        self.register_buffer("mean", None if mean is None else torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1))
        self.register_buffer("std", None if std is None else torch.tensor(std, dtype=torch.float32).view(-1, 1, 1))

    @property
    def head(self) -> nn.Module:
        """The layer that gives the logits, of which some networks' has no bias; a list where several do.

        Raises:
            InputError: it is not known.
        """
        if not self._heads:
            raise InputError(f"{self.name}: which layer gives the logits is not known")
        heads = [self.network.get_submodule(name) for name in self._heads]
        return heads[0] if len(heads) == 1 else nn.ModuleList(heads)

    def head_state(self) -> list[str]:
        """Return the names in ``state_dict`` of the head's tensors, none where it is not known."""
        return [
            f"network.{head}.{name}" for head in self._heads for name in self.network.get_submodule(head).state_dict()
        ]

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
                + self._remedy
            )
        if self.mean is not None and self.std is not None:
            images = (images - self.mean) / self.std
        logits = self.network(images)
        if self._classes:
            self._check_logits(logits, images.shape[0], self._classes)
        return logits

    def _check_logits(self, logits: object, faces: int, classes: int) -> None:
        if isinstance(logits, Tensor) and logits.is_floating_point() and logits.shape[1:] == (classes,):
            # an export leaves the number of faces open, and must not be held to the one it was made with
            if torch.compiler.is_compiling() or torch.jit.is_tracing() or logits.shape[0] == faces:
                return
        shown = f"{logits.dtype} {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(
            f"model: {self.name} gives {shown} for {faces} faces, not float logits ({faces}, {classes}), one for each "
            "class: have its forward return them"
        )


def own_network(
    num_classes: int,
    name: str,
    in_channels: int = 3,
    dropout: float = 0.5,
    mean: list[float] | None = None,
    std: list[float] | None = None,
) -> FaceNetwork:
    """Return a network of ``VGG`` or ``RESNET`` with fresh weights, ending in dropout and one linear layer.

    Input, ``in_channels`` and ``mean``/``std``: see `FaceNetwork`.

    Raises:
        InputError: an unknown name, or values that are out of range or do not fit together.
    """
    if name not in VGG and name not in RESNET:
        names = [*VGG, *RESNET]
        # here, as it has a thousand modules that our own networks do not need
        from fer.models.backbones import names as backbones

        hint = f"; torchvision has it: model=torchvision model.name={name}" if name in backbones() else ""
        raise InputError(f"unknown model name={name!r}; valid: {', '.join(names)}{hint or closest(str(name), names)}")
    check_arguments(num_classes, in_channels, dropout, mean, std)
    if name in VGG:
        layers, smallest = _vgg(name, num_classes, in_channels, dropout), 2 ** VGG[name].count("M")
    else:
        layers, smallest = _resnet(name, num_classes, in_channels, dropout), 1
    head = str(len(layers) - 1)
    return FaceNetwork(layers, name, in_channels, smallest, None, mean, std, head=head)


def check_arguments(
    num_classes: int, in_channels: int, dropout: float, mean: Sequence[float] | None, std: Sequence[float] | None
) -> None:
    """Check what all networks take; InputError."""
    if num_classes < 2:
        raise InputError(f"num_classes={num_classes}: a classifier needs at least 2")
    if not 0 <= dropout < 1:
        raise InputError(f"dropout={dropout} is not in [0, 1)")
    if in_channels not in (1, 3):
        raise InputError(f"in_channels={in_channels}: must be 1 (grey) or 3 (RGB, or grey repeated)")
    if mean is None and std is None:
        return
    if mean is None or std is None:
        raise InputError("mean and std go together: give both or neither")
    if len(mean) != in_channels or len(std) != in_channels or min(std) <= 0:
        raise InputError(f"mean={list(mean)}, std={list(std)}: must be {in_channels} value(s) each, std above 0")


def _vgg(name: str, num_classes: int, in_channels: int, dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = in_channels
    for width in VGG[name]:
        if isinstance(width, str):
            layers.append(nn.MaxPool2d(2))
        else:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(inplace=True)]
            channels = width
    return nn.Sequential(*layers, *_head(channels, num_classes, dropout))


def _head(channels: int, num_classes: int, dropout: float) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(channels, num_classes)]


def _resnet(name: str, num_classes: int, in_channels: int, dropout: float) -> nn.Sequential:
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


def to_unit(faces: Tensor) -> Tensor:
    """Return uint8 faces as floats in [0, 1], as every network here takes them."""
    return faces.to(torch.get_default_dtype()).div_(255)


def parameters(module: nn.Module) -> int:
    """Return the number of a network's values that training moves, unless they are frozen."""
    return sum(parameter.numel() for parameter in module.parameters())
