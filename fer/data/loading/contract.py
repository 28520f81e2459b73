"""What training asks of a data module of the user's, and what stands for what one does not tell."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import pytorch_lightning as pl
import torch
from torch import Tensor

from fer.data.loading.dataset import Batch
from fer.data.source import FaceFormat
from fer.errors import InputError
from fer.labels import labels_from_file
from fer.targets import build, takes

#: Keys of ``data`` beside the module's own arguments, which it is given where it takes arguments of these names.
OWN = ("name", "size", "color", "margin")
#: The same, and keys of the training.
OFFERED = (*OWN, "batch_size", "seed", "num_workers")
#: What Lightning calls with each batch while it is on the CPU.
_HOOK = "on_before_batch_transfer"
#: As a checkpoint has them of data that told none.
_UNKNOWN = {name: torch.zeros(0, dtype=torch.int64) for name in ("train_rows", "train_faces", "val_rows")}


class TrainingData(Protocol):
    """A LightningDataModule whose train and val loaders give `Batch`es; all members here but ``labels`` may be missing.

    Its faces are uint8 (N, C, size, size) of the format that ``data.size`` and ``data.color`` say.
    """

    #: The names of the classes in the order of the batches' labels; known once it is constructed.
    labels: Sequence[str]
    #: Whether the faces are drawn ones, which reports say; by default they are not.
    drawn: bool

    def rows(self, split: str) -> int:
        """Return the number of rows of "train" or "val", which is printed; by default it is not."""
        ...

    def counts(self) -> list[int]:
        """Return the training faces of each class, for losses that need them; by default those are refused."""
        ...

    def identities(self) -> dict[str, Tensor]:
        """Return the hashes by which evaluation refuses rows that were trained on; by default it refuses none.

        ``train_rows``, ``train_faces``, ``val_rows``: int64 (n,), as `fer.data.storage.hdf5.hash_rows` and
        ``hash_faces`` make them.
        """
        ...


def build_module(config: Mapping[str, Any], **offered: Any) -> pl.LightningDataModule:
    """Build the data module of a checked config; ``offered`` are values for `OFFERED` beside those of the config.

    Its batches are checked before they go to the device.

    Raises:
        InputError: it cannot be built, or lacks loaders or labels; in training, a batch that is none of ours.
    """
    values = {key: config[key] for key in OWN} | offered
    own = {key: value for key, value in config.items() if key not in OWN}
    module = build(own, "data", **{key: values[key] for key in takes(config["_target_"], OFFERED)})
    target = config["_target_"]
    for hook in ("train_dataloader", "val_dataloader"):
        if getattr(type(module), hook) is getattr(pl.LightningDataModule, hook):
            raise InputError(f"{target} has no method {hook}, which training needs")
        # as its own, which Lightning calls
        setattr(module, hook, partial(_loader, getattr(module, hook), f"{target}.{hook}()"))
    labels = labels_of(module)
    face = FaceFormat(config["size"], config["color"], config["margin"])
    check = partial(check_batch, face=face, classes=len(labels), target=target)
    # behind the user's own hook, which may make a batch of whatever the loader gives
    setattr(module, _HOOK, partial(_checked, module.on_before_batch_transfer, check))
    return module


def _checked(before: Callable[[Any, int], Any], check: Callable[[Any], None], batch: Any, dataloader_idx: int) -> Any:
    batch = before(batch, dataloader_idx)
    check(batch)
    return batch


def _loader(give: Callable[[], Any], name: str) -> Any:
    """Return what a module gives as a loader, where it is one.

    Raises:
        InputError: nothing can be read from it.
    """
    loader = give()
    if not isinstance(loader, Iterable):
        given = "nothing" if loader is None else f"{type(loader).__name__}"
        raise InputError(f"{name} gives {given}, not a torch.utils.data.DataLoader of Batches: have it return one")
    return loader


def check_batch(batch: Any, face: FaceFormat, classes: int, target: str) -> None:
    """Refuse what is no `Batch` of faces of a format and of labels of so many classes.

    Raises:
        InputError: naming the data module and what is wrong.
    """
    if not isinstance(batch, Batch):
        raise InputError(
            f"{target}: a loader gives {type(batch).__name__}, not fer.data.loading.dataset.Batch; "
            "have collate_fn make one of images uint8 (N, C, size, size) and labels int64 (N,)"
        )
    wanted = (1 if face.color == "grey" else 3, face.size, face.size)
    image, label, n = batch.image, batch.label, len(batch.image)
    if image.dtype != torch.uint8 or image.shape[1:] != wanted or not n:
        raise InputError(
            f"{target}: a batch has images {_kind(image)}, not uint8 (N, {', '.join(map(str, wanted))}), as "
            f"data.size={face.size} and data.color={face.color} say"
        )
    if label.dtype != torch.int64 or label.shape != (n,):
        raise InputError(f"{target}: a batch of {n} faces has labels {_kind(label)}, not int64 ({n},)")
    # on a device they would be waited for
    if not label.is_cuda and not 0 <= int(label.min()) <= int(label.max()) < classes:
        raise InputError(
            f"{target}: a batch has labels of {int(label.min())} to {int(label.max())}; its {classes} labels have the "
            f"numbers 0 to {classes - 1}"
        )
    if batch.target is not None and batch.target.shape != (n, classes):
        raise InputError(f"{target}: a batch has targets {_kind(batch.target)}, not float32 ({n}, {classes})")


def _kind(values: Tensor) -> str:
    return f"{str(values.dtype).removeprefix('torch.')} {tuple(values.shape)}"


def labels_of(module: Any) -> list[str]:
    """Return the class names of a data module.

    Raises:
        InputError: it has none.
    """
    try:
        return labels_from_file(getattr(module, "labels", None))
    except ValueError as error:
        raise InputError(
            f"{_name(module)}: {error}: set it in __init__, in the order of the batches' labels"
        ) from error


def is_drawn(module: Any) -> bool:
    """Whether a data module says that its faces are drawn."""
    return bool(getattr(module, "drawn", False))


def rows_of(module: Any, split: str) -> int | None:
    """Return the rows of a split of a data module, None where it does not tell."""
    return module.rows(split) if callable(getattr(module, "rows", None)) else None


def counts_of(module: Any) -> list[int] | None:
    """Return the training faces of each class of a data module, None where it does not tell.

    Raises:
        InputError: not one number a class.
    """
    if not callable(getattr(module, "counts", None)):
        return None
    counts, classes = list(module.counts()), len(labels_of(module))
    if len(counts) != classes or not all(type(n) is int and n >= 0 for n in counts):
        raise InputError(f"{_name(module)}.counts() gives {counts!s:.60}, not {classes} numbers of faces")
    return counts


def identities_of(module: Any) -> dict[str, Tensor]:
    """Return the hashes of what a data module trains and validates on, none where it does not tell.

    Raises:
        InputError: they are not int64 (n,) by the three names.
    """
    if not callable(getattr(module, "identities", None)):
        return dict(_UNKNOWN)
    identities = module.identities()
    for name in _UNKNOWN:
        hashes = identities.get(name) if isinstance(identities, dict) else None
        if not isinstance(hashes, Tensor) or hashes.dtype != torch.int64 or hashes.ndim != 1:
            raise InputError(f"{_name(module)}.identities() has no {name} int64 (n,): give it, or leave the method out")
    return {name: identities[name] for name in _UNKNOWN}


def _name(module: Any) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"
