"""Prepared files, and what can be done to any HDF5 file."""

import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from hypothesis import strategies as st

from fer.data.loading.dataset import FaceDataset
from fer.data.source import FaceFormat
from fer.data.storage.hdf5 import has_column, read_column, read_info
from tests.conftest import write_tiny
from tests.fuzz.family import Family, require, workplace
from tests.fuzz.mutations import HOSTILE_VALUES, Case, Whole, changed_bytes, changed_document

_TYPES = ("<f4", "<f8", "<i4", "<u8", "S4", "O", "<f2", "?")


def changed_h5(content: bytes) -> st.SearchStrategy[Case]:
    """An HDF5 file with an attribute, a data set, a link or some bytes changed."""
    return _changed_h5(Whole(content))


@st.composite
def _changed_h5(draw: st.DrawFn, whole: Whole) -> Case:
    content: bytes = whole.content
    how = draw(st.sampled_from(("attribute", "attribute", "column", "column", "column", "link", "bytes")))
    if how == "bytes":
        return draw(changed_bytes(content))
    buffer = io.BytesIO(content)
    with h5py.File(buffer, "r+") as file:
        if how == "attribute" and len(file.attrs):
            detail = _change_attribute(draw, file.attrs)
        else:
            names: list[str] = []
            file.visit(names.append)
            detail = _change_item(
                draw, file, draw(st.sampled_from(sorted(names))), "link" if how == "link" else "column"
            )
    return Case(*detail[:1], buffer.getvalue(), detail[1])


def _change_attribute(draw: st.DrawFn, attributes: Any) -> tuple[str, str]:
    name = draw(st.sampled_from(sorted(attributes)))
    before = attributes[name]
    how = draw(st.sampled_from(("left out", "replaced", "inside")))
    del attributes[name]
    if how == "replaced":
        _put(attributes, name, draw(st.sampled_from(HOSTILE_VALUES)))
    elif how == "inside":
        # of JSON what is in it, of a list its items
        document = json.loads(before) if isinstance(before, str) and before[:1] in "{[" else None
        if document:
            _put(attributes, name, json.dumps(draw(changed_document(document)).content))
        elif isinstance(before, np.ndarray):
            _put(attributes, name, [*before[:-1], *draw(st.sampled_from(([], ["x"], [before[0]])))])
        else:
            _put(attributes, name, [before, before])
    return f"attribute: {how}", name


def _put(attributes: Any, name: str, value: Any) -> None:
    """Write an attribute, as text where HDF5 has no such type."""
    try:
        attributes[name] = value
    except (TypeError, ValueError, OverflowError, UnicodeEncodeError):
        attributes[name] = repr(value)


def _change_item(draw: st.DrawFn, file: h5py.File, name: str, how: str) -> tuple[str, str]:
    item = file[name]
    if how == "link":
        how = draw(st.sampled_from(("soft", "external", "virtual", "elsewhere", "cycle")))
        del file[name]
        if how == "soft":
            file[name] = h5py.SoftLink("/nowhere")
        elif how == "external":
            file[name] = h5py.ExternalLink("/etc/hostname", "/x")
        elif how == "cycle":
            file[name] = file["/"]
        elif isinstance(item, h5py.Dataset) and how == "virtual":
            layout = h5py.VirtualLayout(item.shape, item.dtype)
            if item.shape:
                layout[:] = h5py.VirtualSource("missing.h5", "x", item.shape)
            file.create_virtual_dataset(name, layout)
        elif isinstance(item, h5py.Dataset) and item.dtype.kind != "O":
            file.create_dataset(name, item.shape, item.dtype, external=[("elsewhere.raw", 0, h5py.h5f.UNLIMITED)])
        return f"link: {how}", name
    how = draw(st.sampled_from(("left out", "type", "shorter", "longer", "more axes", "one number", "group", "values")))
    if not isinstance(item, h5py.Dataset):
        del file[name]
        if how != "left out":
            file[name] = np.arange(3)
        return "column: a group left out or replaced", name
    values = item[()]
    del file[name]
    if how == "type":
        kind = draw(st.sampled_from(_TYPES))
        try:
            file[name] = values.astype(h5py.string_dtype() if kind == "O" else kind)
        except (TypeError, ValueError):
            file[name] = np.zeros(values.shape, "<f4")
    elif how == "shorter":
        file[name] = values[:-1]
    elif how == "longer":
        file[name] = np.concatenate([values, values[:1]])
    elif how == "more axes":
        file[name] = values[..., None]
    elif how == "one number":
        file[name] = draw(st.sampled_from((0, -1, 1.5, "x")))
    elif how == "group":
        file.create_group(name)
    elif how == "values":
        other = draw(st.sampled_from((-1, 7, 10**6, 255)))
        if values.dtype.kind in "iuf" and len(values):
            values = values.copy()
            values.flat[draw(st.integers(0, values.size - 1))] = np.array(other).astype(values.dtype)
        file[name] = values
    return f"column: {how}", name


@cache
def prepared() -> bytes:
    """A prepared file of 14 train, 7 val and 7 test faces of 8 x 8."""
    path = write_tiny(workplace() / "tiny.h5", {"train": 14, "val": 7, "test": 7}, FaceFormat(8))
    return path.read_bytes()


@cache
def _columns() -> dict[str, dict[str, np.ndarray]]:
    with h5py.File(io.BytesIO(prepared())) as file:
        return {split: {name: file[split][name][()] for name in file[split]} for split in file}


def _open(case: Case, folder: Path) -> None:
    path = folder / "tiny.h5"
    path.write_bytes(case.content)
    info = read_info(path)
    classes = len(info.class_names)
    require(
        0 < classes == len(set(info.class_names)) and all(isinstance(n, str) for n in info.class_names), "class names"
    )
    require(info.face.size == 8 and info.face.color == "grey", f"faces {info.face}")
    # another value that these can have is what the file says
    said = case.note if case.how == "attribute: replaced" else ""
    require(info.face.margin == 0 or (said == "margin" and 0 < info.face.margin <= 2), f"margin {info.face.margin}")
    require(info.drawn is False or said == "drawn", f"drawn {info.drawn}")
    require(isinstance(info.made_by, dict) and isinstance(info.duplicates, dict), "made_by or duplicates")
    touched = case.how.startswith("bytes") or case.how == "column: values"
    # texts of another width are still texts, and only `verify` knows that they were cut
    touched |= case.how == "column: type" and str(case.note).endswith("/path")
    for split, columns in _columns().items():
        if not info.rows(split):
            require(False, f"no rows of {split}")
        n = len(columns["label"])
        require(info.rows(split) == n, f"{info.rows(split)} rows of {split}")
        for name, before in columns.items():
            if not has_column(path, split, name):
                require(False, f"no column {name}")
            now = read_column(path, split, name)
            if name == "path":
                now = np.array([str(each).encode() for each in now])
            require(now.shape == before.shape, f"{name} {now.shape}")
            require(name == "path" or now.dtype == before.dtype, f"{name} {now.dtype}")
            require(name != "label" or ((now >= 0) & (now < classes)).all(), "labels out of range")
            require(touched or np.array_equal(now, before, equal_nan=now.dtype.kind == "f"), f"other values in {name}")
        batch = FaceDataset(path, split)[np.arange(n), 1.0]
        require(tuple(batch.image.shape) == (n, 1, 8, 8), f"a batch {tuple(batch.image.shape)}")
        disk = FaceDataset(path, split, disk=True)
        require(torch.equal(disk[torch.arange(n), 1.0].image, batch.image), "disk and memory differ")


FAMILIES = [Family("prepared h5", lambda: [Case("whole", prepared())], lambda: changed_h5(prepared()), _open)]
