"""Reading checkpoints, reading and writing weight files: plain data and tensors only, never code.

A weight file (safetensors) holds a network alone, at half a checkpoint's precision and without its optimiser, with all
that its use needs. Its tensors are the network's ``state_dict``, float16 where that has the range and float32 where
not, and ``identities.*``, uint8 (n, 5): of each hash that evaluation knows training rows and faces by, the low 40 bits.
Its metadata are those of `describe`, ``format``, ``hyper_parameters`` (JSON, what `EmotionClassifier` is built from)
and, where one was fitted, ``temperature``, by which the last layer's weights are divided already.
"""

import json
import warnings
import zipfile
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from fer.engines import ONNX, SAFETENSORS, suffix_of
from fer.errors import InputError
from fer.models.classifier import IDENTITIES, EmotionClassifier
from fer.models.hyper_parameters import check_hyper_parameters
from fer.models.pretrained import locate
from fer.targets import trusting

#: Version of the weight files that are written and the only one that is read.
FORMAT = "1"

#: Bytes of a hash in a weight file. That a row which is none of n training rows has the hash of one of them is n / 2^40
#: likely: for all rows of a FER2013 split together 3,589 * 28,709 / 2^40, one in ten thousand.
HASH_BYTES = 5


def load_checkpoint(ckpt: str | Path, trust: Iterable[str] = ()) -> EmotionClassifier:
    """Return the classifier of a .ckpt or .safetensors file or a shipped network's name, on the CPU, in eval mode.

    It is a torch module: ``model(model.preprocess("face.jpg")).softmax(1)`` are probabilities, and ``model.train()``
    and ``model.to("cuda")`` do what they do elsewhere.

    A file holds the name of its network's class, never its code. Classes of this project, torch and torchvision are
    built; of others only those whose package ``trust`` names, as ("my_lab",).

    Raises:
        InputError: no such file or name, not a checkpoint or weight file of this project, or a class not trusted.
    """
    with trusting(trust):
        return _load(ckpt)


def _load(ckpt: str | Path) -> EmotionClassifier:
    path = locate(ckpt)
    if suffix_of(path) == ONNX:
        raise InputError(f"{path}: an exported file holds no checkpoint; give the .ckpt that it was made from")
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    if suffix_of(path) == SAFETENSORS:
        return load_weights(path)
    content = read_checkpoint(path)
    try:
        identities, state = content["identities"], content["state_dict"]
        if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
            raise ValueError("state_dict is no mapping of names to weights")
        # the LightningModule of fer.training calls the network net; what is not its may be the loss's
        state = {name.removeprefix("net."): v for name, v in state.items() if not name.startswith("loss.")}
        model = _assemble(content["hyper_parameters"], state, identities)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except _BAD as error:
        reason = f"a checkpoint that does not fit this program, of another version of it? ({_one_line(error)})"
        raise InputError(f"{path}: {reason}; give another one, or train again") from error
    require_sound(model.net, path)
    return model


#: The bit of an archive entry's external attributes that makes a folder of it, which no checksum covers.
_FOLDER = 0x10

#: What building a network of foreign values, and filling it, raises.
_BAD = (KeyError, ValueError, TypeError, AttributeError, RuntimeError, OverflowError)


def _one_line(said: object) -> str:
    """Return the beginning of what an error or a name in a file says, without line breaks."""
    return " ".join(str(said).split())[:200]


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Return what a .ckpt holds: plain data and tensors on the CPU, every byte of it as it was written.

    Raises:
        InputError: not a whole checkpoint of this project.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            # torch packs nothing, so what is read is no larger than the file
            packed = any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist())
            # of what the directory calls a folder torch reads nothing, and takes whatever the memory holds
            folders = [e.filename for e in archive.infolist() if e.is_dir() or e.external_attr & _FOLDER]
            damaged = archive.testzip()
    except Exception as error:  # zipfile raises many types on foreign bytes
        raise InputError(f"{path}: not a readable checkpoint of this project") from error
    if packed:
        raise InputError(f"{path}: not a readable checkpoint of this project: its archive is compressed")
    if folders:
        reason = f"its archive calls {_one_line(folders[0])} a folder"
        raise InputError(f"{path}: a damaged checkpoint, {reason}; copy it again")
    if damaged:
        reason = f"the checksum of {_one_line(damaged)} is another"
        raise InputError(f"{path}: a damaged checkpoint, {reason}; copy it again")
    try:
        with warnings.catch_warnings():
            # about foreign pickles, which are refused below
            warnings.simplefilter("ignore")
            # weights_only refuses every pickled object that is not plain data
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's readers raise many types on foreign bytes
        raise InputError(f"{path}: not a readable checkpoint of this project") from error
    if not isinstance(content, dict) or not {"hyper_parameters", "state_dict", "identities"} <= content.keys():
        raise InputError(f"{path}: not a checkpoint of this project")
    return content


def _assemble(parameters: Any, state: dict[str, Tensor], identities: Any) -> EmotionClassifier:
    """Return the classifier of what a file holds, in evaluation mode; one of ``_BAD`` where that is not sound."""
    check_hyper_parameters(parameters)
    _check_identities(identities)
    model = EmotionClassifier.build(parameters, download=False)
    own = model.net.state_dict()
    for name, values in state.items():
        if not is_plain(values):
            raise ValueError(f"{name} is no plain tensor")
        # of whatever precision, as weight files are half; other numbers mean what they say in one type only
        both = name in own and values.is_floating_point() and own[name].is_floating_point()
        if name in own and not both and values.dtype != own[name].dtype:
            raise ValueError(f"{name} is {values.dtype}, not {own[name].dtype}")
    model.net.load_state_dict(state)
    model.identities = {name: identities[name] for name in IDENTITIES}
    return model.eval()


def is_plain(values: Any) -> bool:
    """Say whether a value is a tensor that has all its values: an expanded one would be larger than its file."""
    if type(values) is not Tensor or values.layout != torch.strided or values.is_meta or values.is_quantized:
        return False
    return values.numel() * values.element_size() <= values.untyped_storage().nbytes()


def _check_identities(identities: Any) -> None:
    for name in IDENTITIES:
        known = identities.get(name) if isinstance(identities, dict) else None
        if known is None or not is_plain(known):
            raise ValueError(f"identities.{name} is missing, or no plain tensor")
        whole = known.dtype == torch.int64 and known.ndim == 1
        if not whole and not (known.dtype == torch.uint8 and known.ndim == 2 and known.shape[1] == HASH_BYTES):
            raise ValueError(f"identities.{name} is {known.dtype} {tuple(known.shape)}, not hashes of rows or faces")


def require_sound(net: nn.Module, path: str | Path) -> None:
    """Refuse weights of a file whose outputs would mean nothing.

    Raises:
        InputError: weights are NaN or infinite, or a variance is below 0.
    """
    for name, values in net.state_dict().items():
        bad = ~values.isfinite()
        if name.endswith("running_var"):
            bad |= values < 0
        if name == "std":
            bad |= values <= 0
        if n := int(bad.sum()):
            what = "NaN, infinite or below 0" if name.endswith(("running_var", "std")) else "NaN or infinite"
            raise InputError(
                f"{path}: {n:,} of the {values.numel():,} values of {name} are {what}, so it can name no face; give an "
                "earlier checkpoint, or train again with a lower optimizer.lr"
            )


def load_weights(path: str | Path) -> EmotionClassifier:
    """Return the classifier of a weight file, whatever its name, in float32 on the CPU, in evaluation mode.

    Raises:
        InputError: not a complete weight file of this project and of format ``FORMAT``.
    """
    try:
        with safe_open(path, "pt") as file:
            meta = file.metadata() or {}
            ours = meta.get("project") == "fer-lightning" and meta.get("format") == FORMAT
            tensors = {name: file.get_tensor(name) for name in file.keys()} if ours else {}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a readable .safetensors file") from error
    if not ours:
        raise InputError(f"{path}: not a weight file that export.py wrote, in its format {FORMAT}")
    try:
        parameters = json.loads(meta["hyper_parameters"])
        identities = {name: tensors.pop(f"identities.{name}").clone() for name in IDENTITIES}
        if any(known.dtype != torch.uint8 for known in identities.values()):
            raise ValueError("identities are not the low bytes of hashes")
        model = _assemble(parameters, tensors, identities)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (*_BAD, RecursionError) as error:
        reason = f"a weight file that does not fit this program ({_one_line(error)})"
        raise InputError(f"{path}: {reason}: export it again") from error
    require_sound(model.net, path)
    return model


def save_weights(model: EmotionClassifier, path: str | Path, temperature: float | None = None) -> None:
    """Write a weight file; ``temperature`` is what `divide_logits` was called with, to be read by people.

    Of an absolute path only the name is kept, so that the file says nothing about the disk it was made on.
    """
    tensors = {}
    for name, values in model.net.state_dict().items():
        half = values.half() if values.is_floating_point() else values
        fits = not values.is_floating_point() or bool((half.isfinite() | ~values.isfinite()).all())
        tensors[name] = (half if fits else values).cpu().contiguous()
    for name in IDENTITIES:
        tensors[f"identities.{name}"] = _low_bytes(model.identities[name])
    parameters = json.dumps(_without_folders(model.hyper_parameters))
    meta = describe(model) | {"format": FORMAT, "hyper_parameters": parameters}
    # not save_file, whose files nobody else may read
    Path(path).write_bytes(save(tensors, meta | ({} if temperature is None else {"temperature": str(temperature)})))


def _without_folders(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_folders(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_folders(each) for each in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def describe(model: EmotionClassifier) -> dict[str, str]:
    """Return the metadata that every exported file has: project, name (of the network), labels, face, data and drawn.

    ``labels`` is a JSON list in the order of the outputs; ``face`` JSON with size, color and margin; ``data`` the name
    of the data set that it was trained on; ``drawn`` "true" where that is the drawn sample.
    """
    return {
        "project": "fer-lightning", "name": model.name, "labels": json.dumps(model.labels),
        "face": json.dumps(asdict(model.face)), "data": model.data["name"], "drawn": json.dumps(model.drawn),
    }  # fmt: skip


def divide_logits(model: EmotionClassifier, temperature: float) -> None:
    """Divide a model's last layer, and with it its logits, by a temperature: everything made of it is calibrated."""
    with torch.no_grad():
        for weights in model.net.head.parameters():
            weights.div_(temperature)


def _low_bytes(hashes: torch.Tensor) -> torch.Tensor:
    if hashes.dtype == torch.uint8:
        return hashes
    return hashes.view(torch.uint8).view(len(hashes), 8)[:, :HASH_BYTES].contiguous()


def inherit(model: EmotionClassifier, source: EmotionClassifier) -> None:
    """Add what ``source`` was trained and selected on to what ``model`` knows, as it begins from it or learns of it."""
    for name in IDENTITIES:
        both = model.identities[name], source.identities[name]
        if both[0].dtype != both[1].dtype:
            both = _low_bytes(both[0]), _low_bytes(both[1])
        model.identities[name] = torch.cat(both).unique(dim=0)


def is_among(hashes: np.ndarray, known: torch.Tensor) -> np.ndarray:
    """Say of each int64 hash (n,) whether it is among ``known``: int64 (m,), or uint8 (m, 5), their low 40 bits."""
    if known.dtype != torch.uint8:
        return np.isin(hashes, known.numpy())
    whole = np.zeros((len(known), 8), np.uint8)
    whole[:, :HASH_BYTES] = known.numpy()
    return np.isin(hashes & ((1 << 8 * HASH_BYTES) - 1), whole.view("<i8")[:, 0])
