"""What the suffix of a network's file says about who opens it; `fer.api` acts on it."""

from pathlib import Path

CHECKPOINT, SAFETENSORS, ONNX, TORCH_EXPORT, DARKNET = ".ckpt", ".safetensors", ".onnx", ".pt2", ".weights"

#: How the name of a file ends that holds a network of this project's own.
NETWORK_SUFFIXES = (CHECKPOINT, SAFETENSORS, ONNX)


def suffix_of(ckpt: str | Path) -> str:
    """Return the suffix of a file's name in lower case, "" for the name of a shipped network."""
    return Path(ckpt).suffix.lower()


def is_darknet(ckpt: str | Path) -> bool:
    """Say whether a file holds the weights of a Darknet net."""
    return suffix_of(ckpt) == DARKNET


def resolve(ckpt: str) -> str:
    """Return BASE_last.weights for the BASE_last.ckpt of a Darknet training in torch, saved with it; else ``ckpt``.

    The .ckpt has the same numbers, and what a resumed run needs besides.
    """
    weights = ckpt.removesuffix(CHECKPOINT) + DARKNET
    return weights if ckpt.endswith(CHECKPOINT) and Path(weights).is_file() else ckpt
