"""The networks that come with the package: NAME.safetensors, and NAME.md, its model card, beside it.

Whatever takes a checkpoint takes such a name: ``evaluate.py ckpt=NAME``, ``Predictor.load(NAME)``, ``train.py
init=NAME``. `fer.models.checkpoint` reads and writes the files; nothing here needs torch.
"""

from importlib.resources import files
from pathlib import Path

from fer.engines import DARKNET, suffix_of
from fer.engines import NETWORK_SUFFIXES as SUFFIXES
from fer.errors import InputError

#: Where the files lie.
FOLDER = Path(str(files("fer.models.pretrained")))


def names() -> tuple[str, ...]:
    """Return the names of the shipped networks in alphabetical order."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.safetensors")))


def locate(ckpt: str | Path) -> Path:
    """Return the file of a shipped network's name, or the path that was given; it need not exist.

    Raises:
        InputError: neither a name of ``names()`` nor a path that ends in one of ``SUFFIXES``.
    """
    if str(ckpt) in names():
        return FOLDER / f"{ckpt}.safetensors"
    path = Path(ckpt)
    if suffix_of(path) not in SUFFIXES:
        raise InputError(
            f"{ckpt}: not the name of a shipped network (there is {', '.join(names()) or 'none'}), "
            f"and a path must end in {', '.join(SUFFIXES[:-1])} or {SUFFIXES[-1]}, or, of a Darknet net for evaluate, "
            f"predict and export, in {DARKNET}"
        )
    return path
