"""Folders of LitData's shards: their index, the shards themselves, and the rows beside them."""

import io
import json
import shutil
from functools import cache
from pathlib import Path

import h5py
import numpy as np
import torch
from hypothesis import strategies as st

from fer.data.source import FaceFormat, empty_faces
from fer.data.storage.shards import StreamImages, write_stream
from tests.fuzz.family import Family, require, workplace
from tests.fuzz.mutations import HOSTILE_VALUES, Case, as_json, changed_bytes, changed_document

_FACES = 12
_SHARD = "chunk-0-0.bin"


@cache
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (_FACES, 8, 8)).astype(np.uint8)


@cache
def _folder() -> Path:
    """A folder of shards with one split, train, of 12 faces in one block."""
    out = workplace() / "faces.litdata"
    faces = empty_faces(_FACES, FaceFormat(8))
    faces.image, faces.path = images(), [str(n) for n in range(_FACES)]
    faces.label = np.arange(_FACES) % 7
    write_stream(out, lambda: [faces], tuple("abcdefg"), ("tiny",), FaceFormat(8), False, {})
    return out


def _whole() -> list[Case]:
    names = ("train/index.json", f"train/{_SHARD}", "rows.h5")
    return [Case("whole", (_folder() / name).read_bytes(), name) for name in names]


@st.composite
def _changed(draw: st.DrawFn) -> Case:
    kind = draw(st.sampled_from(("index", "index", "index bytes", "shard", "rows", "rows bytes")))
    folder = _folder()
    index = (folder / "train/index.json").read_bytes()
    if kind == "index":
        case = as_json(draw(changed_document(json.loads(index), (*HOSTILE_VALUES, "chunk-0-1.bin", "../../x.bin", 12))))
        return Case(f"index, {case.how}", case.content, "train/index.json")
    if kind == "index bytes":
        case = draw(changed_bytes(index))
        return Case(f"index, {case.how}", case.content, "train/index.json")
    if kind == "shard":
        case = draw(changed_bytes((folder / "train" / _SHARD).read_bytes()))
        return Case(f"shard, {case.how}", case.content, f"train/{_SHARD}")
    rows = (folder / "rows.h5").read_bytes()
    if kind == "rows bytes":
        case = draw(changed_bytes(rows))
        return Case(f"rows, {case.how}", case.content, "rows.h5")
    buffer = io.BytesIO(rows)
    with h5py.File(buffer, "r+") as file:
        if draw(st.booleans()):
            file.attrs["block_rows"] = draw(st.sampled_from((0, -1, 1, 3, 10**9, 2**62, 1.5, "x", [1, 2])))
        else:
            file.attrs["shards"] = draw(
                st.sampled_from(("..", "/", "s3://x/y", "local:/", "", 3, ["x"], "é", "nowhere"))
            )
    return Case("rows, attribute", buffer.getvalue(), "rows.h5")


def _open(case: Case, folder: Path) -> None:
    place = folder / "faces.litdata"
    if not place.exists():
        shutil.copytree(_folder(), place)
    before = (place / case.note).read_bytes()
    (place / case.note).write_bytes(case.content)
    try:
        faces = StreamImages(place, "train")
        got = faces[torch.arange(_FACES)].numpy()
    finally:
        (place / case.note).write_bytes(before)
    require(got.shape == (_FACES, 1, 8, 8) and got.dtype == np.uint8, f"images {got.dtype} {got.shape}")
    # a shard has no check sum
    require("shard" in case.how or np.array_equal(got[:, 0], images()), "other images")


FAMILIES = [Family("LitData shards", _whole, _changed, _open)]
