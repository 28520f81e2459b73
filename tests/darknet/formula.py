"""Weights and photos that are numbers of a formula, so that a test and a program elsewhere take the same ones."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fer.darknet.formats.cfg import layers
from fer.darknet.torch_engine.network import DarknetNetwork
from fer.darknet.torch_engine.weighted import Stored

#: Knuth's multiplier, which spreads 1, 2, 3 ... evenly.
_SPREAD = 2654435761


def spread(count: int, start: int = 0) -> np.ndarray:
    """Return so many numbers within 0 and 1, float32."""
    return ((np.arange(start, start + count, dtype=np.uint64) * _SPREAD % 2**32) / 2**32).astype(np.float32)


def fill(network: DarknetNetwork) -> DarknetNetwork:
    """Give a network weights by the formula, with variances about 1 and the deviation that keeps numbers in their size.

    Those of the layer before a head are a tenth, so that its boxes have sizes about their anchors'.
    """
    start = 1
    before_head = {i - 1 for i in network.heads}
    with torch.no_grad():
        for layer, module in zip(layers(network.sections), network.layers, strict=True):
            for name, tensor in (module.stored() if isinstance(module, Stored) else {}).items():
                values = torch.from_numpy(spread(tensor.numel(), start)).view(tensor.shape)
                start += tensor.numel()
                if name in ("scale", "variance"):
                    values = 0.5 + values
                elif name == "weight":
                    # of a convolution (out, in, size, size), connected (out, in), a local one (place, out, in)
                    inputs = tensor.shape[-1] if tensor.ndim < 4 else tensor[0].numel()
                    values = (2 * values - 1) * (6 / inputs) ** 0.5 * (0.1 if layer.index in before_head else 1)
                else:
                    values = 0.6 * values - 0.3
                tensor.copy_(values)
    return network.eval()


def photo(network: DarknetNetwork) -> np.ndarray:
    """Return a photo (1, channels, height, width) of numbers of the formula, as a net takes it."""
    width, height, channels = network.size
    return spread(channels * height * width).reshape(1, channels, height, width)


#: Boxes to train on: class, centre x and y, width and height as fractions of the photo, apart from each other.
BOXES = [[0, 0.2, 0.25, 0.2, 0.16], [1, 0.8, 0.25, 0.4, 0.45], [1, 0.25, 0.75, 0.3, 0.5]]


def training_photo(network: DarknetNetwork) -> np.ndarray:
    """Return a photo uint8 (height, width, channels) of numbers of the formula."""
    width, height, channels = network.size
    return (256 * spread(channels * height * width)).astype(np.uint8).reshape(height, width, channels)


def scored_photos(network: DarknetNetwork, folder: Path, count: int = 12) -> list[Path]:
    """Write photos of numbers of the formula with the labels of their faces beside them, and return their paths.

    Photo 3 has none; a face is of one of the classes, 0.15 to 0.5 of the photo wide and high.
    """
    photos = []
    for number in range(count):
        width, height = 32 + 5 * number, 80 - 3 * number
        pixels = (256 * spread(width * height * 3, 7919 * number)).astype(np.uint8).reshape(height, width, 3)
        photos.append(folder / f"{number:02}.png")
        Image.fromarray(pixels).save(photos[-1])
        faces = 0 if number == 3 else 8
        rows = spread(5 * faces, 104729 * (number + 1)).reshape(faces, 5).tolist()
        lines = [
            f"{int(network.classes * label)} {0.25 + x / 2:.6f} {0.25 + y / 2:.6f} {0.15 + 0.35 * w:.6f} "
            f"{0.15 + 0.35 * h:.6f}\n"
            for label, x, y, w, h in rows
        ]
        photos[-1].with_suffix(".txt").write_text("".join(lines))
    return photos


def class_name(label: int) -> str:
    """Return a name that is within no other's."""
    return f"class_{chr(ord('a') + label)}"


def named_photos(folder: Path, classes: int, count: int = 60) -> list[Path]:
    """Write photos of some noise on a colour of the formula, each class in its turn, and return their paths.

    A name ends in its class, class_a and on; the photos are wide, high and square.
    """
    photos = []
    for number in range(count):
        width, height = 40 + 7 * (number % 5), 80 - 9 * (number % 6)
        colour = spread(3, 31 * (number + 1))
        noise = spread(width * height * 3, 7919 * number).reshape(height, width, 3)
        photos.append(folder / f"{number:02}_{class_name(number % classes)}.png")
        Image.fromarray((256 * (0.7 * colour + 0.3 * noise)).astype(np.uint8)).save(photos[-1])
    return photos


def stored(network: DarknetNetwork) -> np.ndarray:
    """Return all numbers of a network as they stand in a .weights file."""
    parts = [tensor for module in network.layers if isinstance(module, Stored) for tensor in module.stored().values()]
    return torch.cat([part.detach().flatten() for part in parts]).numpy()
