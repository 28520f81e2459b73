"""What a user gives as a picture, as an array: a file, an address, bytes, a PIL image, an array or a tensor."""

import os
import sys
import warnings
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from PIL import Image, ImageOps

from fer.data.photos import decode_photo, read_photo
from fer.data.source import PhotoLimits
from fer.errors import InputError
from fer.system.addresses import without_password
from fer.system.download import download, is_web_address

if TYPE_CHECKING:
    import torch

    #: One picture, in whatever form `to_array` takes.
    Picture: TypeAlias = np.ndarray | str | os.PathLike[str] | bytes | Image.Image | torch.Tensor
else:
    # a tensor's class is known to those who have imported torch
    Picture = Any

_LIMITS = PhotoLimits()


def is_one(given: Any) -> bool:
    """Say whether what is given is one picture, or what can be none; else it holds many: a list, a generator, ...

    An array (N, h, w, C) and a tensor (N, C, H, W) hold many. An open file is one, though it gives lines.
    """
    if isinstance(given, np.ndarray) or _is_tensor(given):
        return given.ndim != 4
    if isinstance(given, str | os.PathLike | bytes | bytearray | memoryview | Image.Image):
        return True
    return is_open_file(given) or isinstance(given, Mapping) or not isinstance(given, Iterable)


def is_open_file(given: Any) -> bool:
    """Say whether what is given is read by ``read()``, as an open file, an `io.BytesIO` or an upload of a server."""
    return callable(getattr(given, "read", None))


def content_of(file: Any) -> bytes:
    """Return what an open file holds from where it stands.

    Raises:
        InputError: it gives text, was closed or can't be read.
    """
    try:
        content = file.read()
    except (OSError, ValueError) as error:
        raise InputError(f"picture: an open file that can't be read ({error})") from error
    if not isinstance(content, bytes):
        raise InputError('picture: a file of text; open it with "rb"')
    return content


def is_address(given: Any) -> bool:
    """Say whether what is given is the http(s) address of a photo."""
    return isinstance(given, str) and is_web_address(given)


def path_of(picture: Any) -> str | None:
    """Return the file or address that a picture is read from, without password; None where there is none."""
    if isinstance(picture, Image.Image):
        return str(getattr(picture, "filename", "")) or None
    return without_password(os.fspath(picture)) if isinstance(picture, str | os.PathLike) else None


def to_array(picture: Picture, name: str | None = None) -> np.ndarray:
    """Return a picture as uint8 (h, w) grey or (h, w, 3) RGB.

    ``picture`` is a file; an http(s) address; a file's bytes, or it opened with "rb"; a PIL image, turned as its EXIF
    says, which a file is too; an array (h, w) or (h, w, 1) grey, (h, w, 3) RGB or (h, w, 4) RGBA; or a tensor (H, W),
    (1, H, W), (3, H, W) or (4, H, W). Arrays and tensors are uint8, or floats from 0 to 1. Alpha is dropped. A JPEG
    without an end marker is read as far as it goes, with a warning. ``name`` is what errors call bytes.

    Raises:
        InputError: it can't be read, or is no picture.
    """
    if is_address(picture):
        picture, name = download(str(picture)), path_of(picture)
    if is_open_file(picture):
        picture = content_of(picture)
    cut: list[str] = []
    if isinstance(picture, str | os.PathLike):
        path = os.fspath(picture)
        photo = read_photo(path, "rgb", _LIMITS, cut)
        if isinstance(photo, str):
            if os.path.isdir(path):
                photo = "a folder; give it alone, with stream=True"
            raise InputError(f"{path}: {photo}")
        _warn_of(cut)
        return photo
    if isinstance(picture, bytes | bytearray | memoryview):
        photo = decode_photo(bytes(picture), "rgb", _LIMITS, cut, name or "picture")
        if isinstance(photo, str):
            raise InputError(f"{name or 'picture'}: {len(picture):,} bytes that are no photo ({photo})")
        _warn_of(cut)
        return photo
    if isinstance(picture, Image.Image):
        picture = _of_image(picture)
    elif _is_tensor(picture):
        picture = _of_tensor(picture)
    if not isinstance(picture, np.ndarray):
        raise InputError(
            "picture: a file, an address, bytes, a PIL image, an array or a tensor expected, got "
            f"{type(picture).__name__}"
        )
    return _checked(picture)


def _warn_of(cut: list[str]) -> None:
    for file in cut:
        warnings.warn(f"{file}: without an end marker, read as far as it goes", stacklevel=3)


def _checked(picture: np.ndarray) -> np.ndarray:
    if picture.ndim not in (2, 3) or picture.shape[2:] not in ((), (1,), (3,), (4,)) or not picture.size:
        remedy = ""
        if picture.ndim == 4:
            remedy = "; several pictures are given as list(pictures)"
        elif picture.ndim == 3 and picture.shape[0] in (1, 3, 4):
            remedy = "; give picture.transpose(1, 2, 0)"
        raise InputError(f"picture: shape (h, w), (h, w, 3) or (h, w, 4) expected, got {picture.shape}{remedy}")
    if picture.ndim == 3:
        picture = picture[:, :, 0] if picture.shape[2] == 1 else picture[:, :, :3]
    if np.issubdtype(picture.dtype, np.floating):
        low, high = float(picture.min()), float(picture.max())
        # a comparison with NaN is false
        if not (low >= 0 and high <= 1):
            raise InputError(
                f"picture: floats from 0 to 1 expected, got {low:.6g} to {high:.6g}; scale them, or use "
                ".astype('uint8') where they are 0 to 255"
            )
        picture = np.rint(picture.astype(np.float32) * 255).astype(np.uint8)
    if picture.dtype != np.uint8:
        raise InputError(
            f"picture: uint8 0..255 or floats from 0 to 1 expected, got {picture.dtype}; scale it and use "
            ".astype('uint8')"
        )
    return np.ascontiguousarray(picture)


def _is_tensor(picture: Any) -> bool:
    # who has a tensor has imported torch, which others shall not wait for
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(picture, torch.Tensor)


def _of_tensor(picture: Any) -> np.ndarray:
    """Return a tensor (H, W) or (C, H, W) as an array (h, w) or (h, w, C)."""
    if picture.ndim not in (2, 3) or (picture.ndim == 3 and picture.shape[0] not in (1, 3, 4)):
        remedy = ""
        if picture.ndim == 4:
            remedy = "; several pictures are given as list(pictures)"
        elif picture.ndim == 3 and picture.shape[2] in (1, 3, 4):
            remedy = "; give picture.permute(2, 0, 1)"
        raise InputError(
            f"picture: a tensor (H, W), (1, H, W), (3, H, W) or (4, H, W) expected, got {tuple(picture.shape)}{remedy}"
        )
    try:
        picture = picture.detach().cpu()
        # numpy has no bfloat16, and reads no view that is negated when it is read
        array = (picture.float() if picture.is_floating_point() else picture).numpy(force=True)
    except (RuntimeError, TypeError) as error:  # of sparse, quantized and meta tensors
        said = " ".join(str(error).split())[:100]
        raise InputError(
            f"picture: a tensor without plain values: {picture.layout}, {picture.dtype} ({said})"
        ) from error
    return array if array.ndim == 2 else array.transpose(1, 2, 0)


def _of_image(image: Image.Image) -> np.ndarray:
    if image.width * image.height > _LIMITS.max_pixels:
        raise InputError(f"picture: {image.width}x{image.height} are too many pixels")
    if image.mode in ("I", "F"):
        raise InputError(f"picture: a PIL image of mode {image.mode}, whose range is not known; convert it to L or RGB")
    try:
        upright = ImageOps.exif_transpose(image)
        if upright.mode.startswith("I;16"):
            # as of a file of 16 bits
            return (np.asarray(upright) >> 8).astype(np.uint8)
        return np.asarray(upright if upright.mode == "L" else upright.convert("RGB"))
    except Exception as error:  # an image is read when it is first used, and decoders raise many types
        said = " ".join(str(error).split())[:200]
        raise InputError(f"{path_of(image) or 'picture'}: a PIL image that can't be read ({said})") from error
