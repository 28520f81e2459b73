"""Networks that were looked at for the box of shipped ones, as tables; `capacity.py` trains and times them."""

import torch
from torch import Tensor, nn

#: Read from left to right: a number is a 3x3 convolution of that width with batch norm and ReLU, "M" a 2x2 max-pool,
#: "R" two more convolutions of the same width with a shortcut around them, "E" a squeeze-excitation (Hu et al. 2018),
#: "S64" a convolution of stride 2, "D64" a depthwise convolution and a 1x1 to 64 (Howard et al. 2017), "I" an inverted
#: residual: 1x1 to four times the width, depthwise, 1x1 back (Sandler et al. 2018).
TABLES: dict[str, list[int | str]] = {
    "vgg9": [32, 32, "M", 64, 64, "M", 128, 128, "M", 256, 256, "M"],
    "vgg9_x1.5": [48, 48, "M", 96, 96, "M", 192, 192, "M", 384, 384, "M"],
    "vgg9_x2": [64, 64, "M", 128, 128, "M", 256, 256, "M", 512, 512, "M"],
    "vgg9_se": [32, 32, "E", "M", 64, 64, "E", "M", 128, 128, "E", "M", 256, 256, "E", "M"],
    "vgg11_late": [32, 32, "M", 64, 64, "M", 160, 160, 160, "M", 384, 384, 384, "M"],
    "resnet9": [32, 64, "M", "R", 128, "M", "R", 256, "M", "R"],
    "resnet11": [32, 32, "M", 64, "R", "M", 128, "R", "R", "M", 256, "R", "R"],
    "resnet9_se": [32, 64, "M", "R", "E", 128, "M", "R", "E", 256, "M", "R", "E"],
    "resnet13_strided": ["S48", "R", "R", "S96", "R", "R", "S192", "R", "S384", "R"],
    "resnet13_wide": ["S64", "R", "R", "S128", "R", "R", "S256", "R", "R"],
    "depthwise": ["S32", "D64", "D64", "M", "D128", "D128", "D128", "M", "D256", "D256", "D256", "M", "D512", "D512"],
    "inverted": ["S32", "I", "I", "S64", "I", "I", "I", "S128", "I", "I", "I", "S256", "I"],
}


def network(num_classes: int, name: str, in_channels: int = 1, dropout: float = 0.2) -> nn.Module:
    """Return a network of ``TABLES`` with random weights: float (N, in_channels, H, W) in [0, 1] to logits."""
    layers: list[nn.Module] = []
    channels = in_channels
    for entry in TABLES[name]:
        if entry == "M":
            layers.append(nn.MaxPool2d(2))
        elif entry == "R":
            layers.append(_Residual(channels))
        elif entry == "I":
            layers.append(_Residual(channels, inverted=True))
        elif entry == "E":
            layers.append(_Excitation(channels))
        elif isinstance(entry, str) and entry[0] == "D":
            layers += [_convolution(channels, channels, groups=channels), _convolution(channels, int(entry[1:]), 1)]
            channels = int(entry[1:])
        else:
            width, stride = (int(entry[1:]), 2) if isinstance(entry, str) else (entry, 1)
            layers.append(_convolution(channels, width, stride=stride))
            channels = width
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(channels, num_classes)]
    return nn.Sequential(*layers, *head)


def _convolution(channels: int, width: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(channels, width, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU(inplace=True))


class _Residual(nn.Module):
    def __init__(self, width: int, inverted: bool = False) -> None:
        super().__init__()
        inner, last = (4 * width, 1) if inverted else (width, 3)
        branch = [_convolution(width, inner, 1), _convolution(inner, inner, groups=inner)] if inverted else []
        branch = branch or [_convolution(width, inner)]
        branch += [nn.Conv2d(inner, width, last, padding=last // 2, bias=False), nn.BatchNorm2d(width)]
        self.branch = nn.Sequential(*branch)
        # an inverted residual is linear at its ends
        self.end = nn.Identity() if inverted else nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.end(x + self.branch(x))


class _Excitation(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weigh = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, width // 8, 1), nn.ReLU(inplace=True),
            nn.Conv2d(width // 8, width, 1), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weigh(x)


if __name__ == "__main__":
    for name in TABLES:
        values = sum(parameter.numel() for parameter in network(7, name).parameters())
        with torch.inference_mode():
            shape = tuple(network(7, name).eval()[:-4](torch.zeros(1, 1, 44, 44)).shape[1:])
        print(f"{name:18} {values:>10,} parameters, {values * 2 / 1e6:5.2f} MB in float16, last map {shape}")
