"""A network's numbers from and to Darknet's .weights files, byte for byte."""

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from fer.darknet.formats.cfg import Section, layers
from fer.darknet.formats.weights import Net, read_header, whole_layers
from fer.darknet.torch_engine.network import DarknetNetwork
from fer.darknet.torch_engine.weighted import Stored
from fer.errors import InputError
from fer.system.files import replacing

#: The version that AlexeyAB's program writes; before 0.2 the images seen are a uint32.
VERSION = (0, 2, 5)


def open_network(net: Net) -> DarknetNetwork:
    """Return the network of a trained net with its weights, in eval mode.

    Raises:
        InputError: as `DarknetNetwork` and `load_weights`.
    """
    network = DarknetNetwork(net.sections)
    load_weights(network, net.weights)
    return network.eval()


def load_weights(
    network: DarknetNetwork, path: Path, first: int | None = None, sections: Sequence[Section] | None = None
) -> int:
    """Fill a network's ``first`` layers from a file, by default all that it holds, and return how many they are.

    ``sections`` is the cfg that the file belongs to where that is another one, whose first layers must be the same.
    Nothing is changed unless everything fits.

    Raises:
        InputError: no such file; one that is cut short or foreign, with the sizes expected and found; layers that
            differ; numbers that are not finite or a variance below 0.
    """
    available = whole_layers(path, sections or network.sections)
    if first is not None and not 0 < first <= available:
        raise InputError(f"{path}: holds {available} layers, so its first {first} cannot be taken")
    if sections:
        _require_same(path, network, sections, available if first is None else first)
    count = available if first is None else first
    header = read_header(path)
    if not (0 <= header.major <= 1000 and 0 <= header.minor <= 1000):
        raise InputError(
            f"{path}: is of version {header.major}.{header.minor}, which is not supported; known: 0.1, 0.2"
        )
    need = sum(layer.floats for layer in layers(network.sections)[:count])
    with path.open("rb") as file:
        numbers = np.fromfile(file, "<f4", need, offset=header.bytes)
    if len(numbers) != need:
        raise InputError(f"{path}: changed while it was read; {4 * len(numbers):,} of {4 * need:,} bytes were there")
    # a copy in the machine's own byte order
    values, at = torch.from_numpy(numbers.astype(np.float32)), 0
    filled = []
    for index, name, tensor in _stored(network, path, count):
        new = values[at : at + tensor.numel()].view(tensor.shape)
        _require_sound(path, index, name, new)
        filled.append((tensor, new))
        at += tensor.numel()
    with torch.no_grad():
        for tensor, new in filled:
            tensor.copy_(new)
    return count


def save_weights(
    network: DarknetNetwork,
    path: Path,
    seen: int = 0,
    first: int | None = None,
    version: tuple[int, int, int] = VERSION,
) -> None:
    """Write a network's ``first`` layers, by default all, as a .weights file that appears whole or not at all.

    ``seen`` is the number of images trained on, from which the program counts its iterations: 0 to start from 0.

    Raises:
        InputError: ``first`` is more layers than there are; a fused network; the file cannot be written.
    """
    count = len(network.layers)
    if first is not None and not 0 < first <= count:
        raise InputError(f"{path}: the first {first} layers of {count} cannot be written")
    parts = [struct.pack("<3iQ" if version[0] * 10 + version[1] >= 2 else "<3iI", *version, seen)]
    for _, _, tensor in _stored(network, path, first or count):
        parts.append(tensor.detach().cpu().contiguous().numpy().astype("<f4").tobytes())
    with replacing(path) as temporary:
        temporary.write_bytes(b"".join(parts))


def _require_same(path: Path, network: DarknetNetwork, sections: Sequence[Section], count: int) -> None:
    theirs, ours = layers(sections), layers(network.sections)
    for their, our in zip(theirs[:count], ours, strict=False):
        if (their.kind, their.floats, their.shape[2]) != (our.kind, our.floats, our.shape[2]):
            raise InputError(
                f"{path}: layer {our.index} is {their.section.where} of {their.floats:,} numbers there, "
                f"but {our.section.where} of {our.floats:,} here: take its first {our.index} at most"
            )
    if count > len(ours):
        raise InputError(f"{path}: {count} layers are more than the {len(ours)} of this net")


def _require_sound(path: Path, index: int, name: str, values: torch.Tensor) -> None:
    if bad := int((~values.isfinite()).sum()):
        raise InputError(f"{path}: {bad:,} of the {values.numel():,} {name} numbers of layer {index} are not finite")
    if name == "variance" and (values < 0).any():
        raise InputError(f"{path}: layer {index} has a variance below 0: the weights are another cfg's or damaged")


def _stored(network: DarknetNetwork, path: Path, count: int) -> Iterator[tuple[int, str, torch.Tensor]]:
    """Yield layer, name and tensor of all that the first ``count`` layers have in a file, in its order."""
    for layer, module in zip(layers(network.sections)[:count], network.layers, strict=False):
        stored = module.stored() if isinstance(module, Stored) else {}
        if sum(tensor.numel() for tensor in stored.values()) != layer.floats:
            raise InputError(f"{path}: a fused network has no .weights; use the one it was made from")
        for name, tensor in stored.items():
            yield layer.index, name, tensor
