"""Parameter groups of an optimiser: no weight decay where it only harms, lower rates for layers far from the head."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import nn
from torch.optim import Optimizer

from fer.models.networks import FaceNetwork
from fer.targets import build

#: What a parameter group calls the share of the optimiser's rate that its layer has.
SCALE = "lr_scale"


def make_optimizer(
    optimizer: Mapping[str, Any],
    net: FaceNetwork,
    param_groups: Mapping[str, Any] | None = None,
    others: Iterable[nn.Parameter] = (),
) -> Optimizer:
    """Build the optimiser of a network's weights that are not frozen, and of ``others``, which have the full rate.

    ``param_groups`` are the keys of conf/train.yaml: with ``no_decay`` biases and the weights of norms, whatever has
    one axis, and what the network itself names by ``no_weight_decay()`` (as timm's do) have no weight decay; with
    ``layer_decay`` a layer has the rate lr * layer_decay ** depth, where the head's depth is 0 (Clark et al. 2020,
    ELECTRA; Bao et al. 2021, BEiT). What is a layer: see `layers`.

    Raises:
        InputError: the optimiser refuses its arguments.
    """
    no_decay, layer_decay = ((param_groups or {}).get(key) for key in ("no_decay", "layer_decay"))
    trained = {name: weight for name, weight in net.network.named_parameters() if weight.requires_grad}
    if not no_decay and layer_decay is None:
        return build(optimizer, params=[*trained.values(), *others])
    undecayed = _undecayed(net.network) if no_decay else set()
    depths = _depths(net) if layer_decay is not None else {}
    kinds: dict[tuple[int, bool], list[nn.Parameter]] = {}
    for name, weight in trained.items():
        kinds.setdefault((depths.get(name, 0), name in undecayed), []).append(weight)
    for weight in others:
        kinds.setdefault((0, False), []).append(weight)
    groups = []
    # the head last, whose rate is the optimiser's
    for (depth, is_undecayed), weights in sorted(kinds.items(), key=lambda kind: (-kind[0][0], kind[0][1])):
        group: dict[str, Any] = {"params": weights}
        if layer_decay is not None:
            scale = layer_decay**depth
            group |= {"lr": optimizer["lr"] * scale, SCALE: scale}
        groups.append(group | ({"weight_decay": 0.0} if is_undecayed else {}))
    return build(optimizer, params=groups)


def highest_rate(optimizer: Optimizer) -> float:
    """Return the rate of the group that has the highest, which is the head's."""
    return max(float(group["lr"]) for group in optimizer.param_groups)


def layers(network: nn.Module) -> list[list[str]]:
    """Return the names of a network's parameters, layer by layer in the order of its modules.

    A layer is a block of a series, such as a residual or a transformer block; outside of series each module that has
    a matrix or a convolution, with the norms and other parameters that follow it. A series is an ``nn.Sequential``,
    ``ModuleList`` or ``ModuleDict`` that holds several blocks of one class; a block has more than one matrix or
    convolution.

    >>> layers(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Linear(4, 2, bias=False)))
    [['0.weight', '0.bias', '1.weight', '1.bias'], ['3.weight']]
    """
    found: list[list[str]] = []
    early: list[str] = []
    for names, is_layer in _units(network, "", {id(weight) for weight in network.parameters()}):
        if is_layer:
            found.append([*early, *names])
            early = []
        elif found:
            found[-1] += names
        else:
            # what comes before the first matrix belongs to its layer
            early += names
    return found or [early]


def _units(module: nn.Module, path: str, left: set[int]) -> Iterator[tuple[list[str], bool]]:
    """Yield the names of parameters that stay together, and whether a matrix is among them that makes them a layer.

    ``left`` are the ids of the parameters that no module before has had.
    """
    yield _names(module, path, left, recurse=False), not list(module.children())
    for name, child in module.named_children():
        inner = f"{path}.{name}" if path else name
        if isinstance(child, _CONTAINERS) or any(map(_is_series, child.modules())):
            yield from _units(child, inner, left)
        elif names := _names(child, inner, left):
            yield names, _matrices(child) > 0


def _names(module: nn.Module, path: str, left: set[int], recurse: bool = True) -> list[str]:
    found = [(name, id(weight)) for name, weight in module.named_parameters(path, recurse) if id(weight) in left]
    left.difference_update(number for _, number in found)
    return [name for name, _ in found]


#: Modules whose children are layers in a row.
_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def _matrices(module: nn.Module) -> int:
    return sum(weight.ndim > 1 for weight in module.parameters())


def _is_series(module: nn.Module) -> bool:
    if not isinstance(module, _CONTAINERS):
        return False
    blocks = [type(child) for child in module.children() if _matrices(child) > 1 and not isinstance(child, _CONTAINERS)]
    return any(blocks.count(kind) > 1 for kind in set(blocks))


def _depths(net: FaceNetwork) -> dict[str, int]:
    """Return how far each parameter's layer is from the head, whose own are 0."""
    head = {name.removeprefix("network.") for name in net.head_state()}
    before = [[name for name in names if name not in head] for names in layers(net.network)]
    ordered = [names for names in before if names]
    first = 1 if head else 0
    depths = {name: first + depth for depth, names in enumerate(reversed(ordered)) for name in names}
    return depths | dict.fromkeys(head, 0)


def _undecayed(network: nn.Module) -> set[str]:
    """Return the names of the parameters that weight decay leaves out."""
    own = getattr(network, "no_weight_decay", None)
    found = set(own()) if callable(own) else set()
    for path, module in network.named_modules():
        for name, weight in module.named_parameters(recurse=False):
            if weight.ndim <= 1 or name.endswith("bias") or "Norm" in type(module).__name__:
                found.add(f"{path}.{name}" if path else name)
    return found
