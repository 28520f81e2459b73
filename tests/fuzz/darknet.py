"""Darknet's files: cfgs, weights, label files, lists, and what an exported folder and a run say of themselves."""

import io
import json
import struct
from functools import cache
from math import prod
from pathlib import Path

import numpy as np
import torch
from hypothesis import strategies as st
from PIL import Image

from fer.darknet.formats.cfg import layers, parse, render
from fer.darknet.formats.photo_folder import labels_from_paths, read_darknet, read_list
from fer.darknet.formats.run_folder import read_facts
from fer.darknet.formats.weights import open_net
from fer.darknet.scoring.mean_ap import read_truth
from fer.darknet.torch_engine.network import DarknetNetwork
from fer.darknet.torch_engine.weights_io import open_network
from tests.fuzz.family import Family, require
from tests.fuzz.mutations import HOSTILE, Case, as_bytes, as_json, changed_bytes, changed_document, changed_table

_CLASSIFIER = """\
[net]
width=16
height=16
channels=3
batch=4
subdivisions=1
learning_rate=0.01
max_batches=10

[convolutional]
batch_normalize=1
filters=4
size=3
stride=1
pad=1
activation=leaky

[maxpool]
size=2
stride=2

[convolutional]
filters=3
size=1
stride=1
pad=1
activation=linear

[avgpool]

[softmax]
groups=1
"""
_DETECTOR = """\
[net]
width=32
height=32
channels=3
batch=4
subdivisions=1

[convolutional]
batch_normalize=1
filters=4
size=3
stride=2
pad=1
activation=leaky

[convolutional]
filters=4
size=3
stride=1
pad=1
activation=linear

[shortcut]
from=-2
activation=linear

[route]
layers=-1,-3

[upsample]
stride=2

[maxpool]
size=2
stride=2

[convolutional]
filters=16
size=1
stride=1
pad=1
activation=linear

[yolo]
mask=0,1
anchors=4,4, 8,8
classes=3
num=2
jitter=.3
ignore_thresh=.7
random=0
"""
_RECORDED = json.loads((Path(__file__).parents[1] / "darknet" / "recorded" / "layers.json").read_text())
_NETS = {"classifier": _CLASSIFIER, "detector": _DETECTOR} | {
    name: net["cfg"].replace("\n[", "\n\n[") for name, net in _RECORDED.items() if "files" not in net
}
_NAMES = ["sad", "happy", "angry"]


@st.composite
def _cfgs(draw: st.DrawFn) -> Case:
    """A cfg with another value, key or line, a section moved or left out, or other bytes."""
    net = draw(st.sampled_from(sorted(_NETS)))
    text = _NETS[net]
    how = draw(
        st.sampled_from(("value", "value", "value", "key", "line left out", "line again", "section", "bytes", "put in"))
    )
    if how == "bytes":
        case = draw(changed_bytes(text.encode()))
        return Case(f"{net}, {case.how}", case.content)
    lines = text.splitlines()
    if how == "section":
        blocks = text.split("\n\n")
        at = draw(st.integers(0, len(blocks) - 1))
        block = blocks.pop(at)
        again = draw(st.integers(0, 2))
        for _ in range(again):
            blocks.insert(draw(st.integers(0, len(blocks))), block)
        return as_bytes(Case(f"{net}, section", "\n\n".join(blocks)))
    at = draw(st.sampled_from([n for n, line in enumerate(lines) if line]))
    key, equals, value = lines[at].partition("=")
    numbers = (
        "2",
        "3",
        "5",
        "-2",
        "-9",
        "16",
        "64",
        "99999",
        "1000000",
        "999999999999999999",
        "1,2",
        "-1,-2,-3",
        "0.1",
    )
    if how == "value" and equals:
        lines[at] = f"{key}={draw(st.sampled_from(HOSTILE + numbers))}"
    elif how == "key" and equals:
        keys = (
            "groups",
            "group_id",
            "stride_x",
            "reverse",
            "padding",
            "batch_normalize",
            "classes",
            "coords",
            "from",
            "side",
            "num",
            "share_index",
            "dilation",
            "scale_wh",
            "softmax",
            "x",
        )
        lines[at] = f"{draw(st.sampled_from(keys))}={draw(st.sampled_from((value, *numbers)))}"
    elif how == "line left out":
        del lines[at]
    elif how == "line again":
        lines.insert(draw(st.integers(0, len(lines))), lines[at])
    else:
        kinds = ("reorg", "reorg3d", "dropout", "crop", "connected", "cost", "region", "local", "gru", "net", "softmax")
        kinds += ("avgpool", "route", "shortcut", "upsample", "yolo", "maxpool", "", "convolutional", "scale_channels")
        kinds += ("sam", "batchnorm", "local_avgpool", "Gaussian_yolo", "detection", "contrastive")
        lines.insert(at, f"[{draw(st.sampled_from(kinds))}]")
    return as_bytes(Case(f"{net}, {how}", "\n".join(lines) + "\n"))


def _open_cfg(case: Case, folder: Path) -> None:
    text = case.content.decode("utf-8", "replace")
    sections = parse(text, "net.cfg")
    require([s.options for s in parse(render(sections))] == [s.options for s in sections], "not the same when written")
    made = layers(sections)
    shapes = [layer.shape for layer in made]
    require(all(min(shape) > 0 for shape in shapes), f"shapes {shapes}")
    numbers = [max(layer.floats, prod(layer.shape)) for layer in made]
    if sum(numbers) > 10**6 and max(numbers) <= 2**28:
        return  # it would be built, which takes long
    network = DarknetNetwork(sections)
    stored = [
        sum(t.numel() for t in module.stored().values()) if hasattr(module, "stored") else 0
        for module in network.layers
    ]
    require(stored == [layer.floats for layer in made], f"{stored} numbers for {[layer.floats for layer in made]}")
    width, height, channels = network.size
    if width * height * channels > 1e6:
        return
    seen: list[tuple[int, ...]] = []
    for module in network.layers:
        module.register_forward_hook(
            lambda _, __, out: seen.append(tuple(out.shape[1:])) if torch.is_tensor(out) else None
        )
    with torch.inference_mode():
        network.eval()(torch.zeros(1, channels, height, width))
    if len(seen) == len(shapes):
        flat = [(shape[2], shape[1], shape[0]) for shape in shapes]
        for got, meant, layer in zip(seen, flat, made, strict=True):
            require(np.prod(got) == np.prod(meant), f"layer {layer.index} [{layer.kind}] gives {got}, not {meant}")


@cache
def _numbers() -> np.ndarray:
    count = sum(layer.floats for layer in layers(parse(_CLASSIFIER)))
    return np.random.default_rng(0).random(count).astype("<f4")


def _weight_bytes() -> bytes:
    return struct.pack("<3iQ", 0, 2, 5, 40) + _numbers().tobytes()


@st.composite
def _weights(draw: st.DrawFn) -> Case:
    content = _weight_bytes()
    how = draw(st.sampled_from(("bytes", "header", "number", "length", "names", "cfg")))
    if how == "bytes":
        return draw(changed_bytes(content))
    if how == "header":
        case = draw(changed_bytes(content[:20]))
        return Case(f"header, {case.how}", case.content + content[20:])
    if how == "length":
        count = draw(st.integers(0, len(content) // 4))
        return Case("length", content[: 4 * count] if draw(st.booleans()) else content + bytes(4 * count))
    if how == "number":
        at = draw(st.integers(0, len(_numbers()) - 1))
        bad = draw(st.sampled_from((float("nan"), float("inf"), -1.0)))
        numbers = _numbers().copy()
        numbers[at] = bad
        return Case("number", content[:20] + numbers.tobytes())
    if how == "names":
        words = draw(
            st.sampled_from(
                (b"", b"sad\n", b"sad\nhappy\nangry\nx\n", b"\xff\xfes\0a\0", b"\0\n\0\n\0\n", b"sad\nsad\nsad\n")
            )
        )
        return Case("names", content, {"names": words})
    return Case("cfg of other layers", content, {"cfg": _DETECTOR.encode()})


def _open_weights(case: Case, folder: Path) -> None:
    files = {"weights": case.content, "cfg": _CLASSIFIER.encode(), "names": "\n".join(_NAMES).encode()} | (
        case.note or {}
    )
    for suffix, content in files.items():
        (folder / f"net.{suffix}").write_bytes(content)
    net = open_net(*(folder / f"net.{suffix}" for suffix in ("weights", "cfg", "names")))
    network = open_network(net)
    require(list(net.names) == _NAMES, f"names {net.names}")
    major, minor = struct.unpack("<2i", case.content[:8])
    start = 20 if major * 10 + minor >= 2 else 16
    numbers = np.frombuffer(case.content[start:], "<f4")
    stored = [tensor for module in network.layers if hasattr(module, "stored") for tensor in module.stored().values()]
    got = np.concatenate([tensor.detach().numpy().reshape(-1) for tensor in stored])
    require(np.isfinite(got).all() and np.array_equal(got, numbers), "other numbers than are in the file")


@cache
def _photo() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 20), (90, 120, 60)).save(buffer, "PNG")
    return buffer.getvalue()


_LABELS = [["0", "0.5", "0.5", "0.2", "0.4"], ["2", "0.25", "0.75", "0.5", "0.5"]]


def _label_bytes() -> bytes:
    return "".join(f"{' '.join(line)}\n" for line in _LABELS).encode()


def _label_files() -> st.SearchStrategy[Case]:
    content = _label_bytes()
    table = changed_table(_LABELS, ("2.0", "3", "20", "0.0", "1.00001", "0.9"), " ").map(as_bytes)
    ends = st.sampled_from(
        (b"\xef\xbb\xbf" + content, content + b"\n\n", content.replace(b"\n", b"\r\n"), content.replace(b"\n", b" \n"))
    )
    return st.one_of(table, table, changed_bytes(content), ends.map(lambda new: Case("written otherwise", new)))


def _open_labels(case: Case, folder: Path) -> None:
    (folder / "photo.png").write_bytes(_photo())
    (folder / "photo.txt").write_bytes(case.content)
    truth, sizes = read_truth([folder / "photo.png"], 3)
    require(sizes == [(40, 20)], f"sizes {sizes}")
    said = []
    for line in case.content.decode("utf-8-sig", "replace").split("\n"):
        if line.strip():
            said.append([float(word) for word in line.split()])
    require(len(truth.label) == len(said), f"{len(truth.label)} faces of {len(said)} lines")
    for label, box, line in zip(truth.label, truth.box, said, strict=True):
        name, x, y, width, height = line
        require(label == name and 0 <= label < 3, f"class {label}")
        require(
            all(0 < value <= 1 for value in (width, height)) and 0 <= x <= 1 and 0 <= y <= 1, f"a box of {line[1:]}"
        )
        meant = ((x - width / 2) * 40, (y - height / 2) * 20, width * 40, height * 20)
        require(np.allclose(box, meant, atol=1e-3), f"box {box}, not {meant}")
    if case.how == "written otherwise":
        require(len(said) == 2, "lines lost")


_LISTED = [["/data/photos/000/0_sad.png"], ["/data/photos/000/1_happy.png"], ["/data/photos/000/2_angry.png"]]


def _list_bytes() -> bytes:
    return "".join(f"{line[0]}\n" for line in _LISTED).encode()


@st.composite
def _lists(draw: st.DrawFn) -> Case:
    lines, content = _LISTED, _list_bytes()
    case = draw(
        st.one_of(changed_bytes(content), changed_table(lines, ("/data/sad_happy.png", "/data/x.png")).map(as_bytes))
    )
    if draw(st.booleans()):
        return case
    written = {
        "BOM": b"\xef\xbb\xbf" + content,
        "CR LF": content.replace(b"\n", b"\r\n"),
        "blank lines": content + b"\n\n",
    }
    how = draw(st.sampled_from(sorted(written)))
    return Case(f"written: {how}", written[how])


def _open_list(case: Case, folder: Path) -> None:
    path = folder / "train.list"
    path.write_bytes(case.content)
    photos = read_list(path)
    labels = labels_from_paths(photos, _NAMES)
    said = [line.strip(b"\r") for line in case.content.removeprefix(b"\xef\xbb\xbf").split(b"\n")]
    said = [line for line in said if line]
    require([str(photo).encode("utf-8", "surrogateescape") for photo in photos] == said or b"//" in case.content
            or any(line.endswith(b"/") or b"/./" in line for line in said), f"{photos}")  # fmt: skip
    for label, line in zip(labels, said, strict=True):
        require([n for n, name in enumerate(_NAMES) if name.encode() in line] == [label], f"class {label} of {line!r}")


def _folder(folder: Path) -> dict:
    return {
        "folder": str(folder), "task": "classifier", "names": _NAMES, "class_names": ["Sad", "Happy", "Angry"],
        "lists": {"train": "train.list", "test": "test.list"}, "photos": {"train": 3, "test": 3}, "data": "folder",
        "drawn": False,
    }  # fmt: skip


def _marks() -> st.SearchStrategy[Case]:
    document = _folder(Path("FOLDER"))
    text = json.dumps(document).encode()
    return st.one_of(changed_document(document, keep=(("folder",),)).map(as_json), changed_bytes(text))


def _open_mark(case: Case, folder: Path) -> None:
    place = json.dumps(str(folder)).encode()
    (folder / "darknet.json").write_bytes(case.content.replace(b'"FOLDER"', place))
    data = read_darknet(folder)
    meant = _folder(folder)
    require(
        data.task in ("classifier", "detector") and data.drawn is False,
        f"task {data.task!r:.40}, drawn {data.drawn!r:.40}",
    )
    require(len(data.names) == len(data.class_names) == 3, f"{len(data.names)} names, {len(data.class_names)} classes")
    require(
        all(isinstance(name, str) and name for name in (*data.names, *data.class_names, data.data)),
        "names that are no text",
    )
    require(set(data.lists) == set(data.photos) and set(data.lists) <= set(meant["lists"]), f"lists {data.lists!r:.80}")
    require(
        all(path.is_relative_to(folder) and ".." not in path.parts for path in data.lists.values()),
        f"lists {data.lists!r:.80}",
    )
    require(all(type(n) is int and n > 0 for n in data.photos.values()), f"photos {data.photos!r:.80}")


_FACTS = {"program": "torch", "drawn": True, "pretrained": None, "data": "sample", "size": 16}


def _runs() -> st.SearchStrategy[Case]:
    return st.one_of(changed_document(_FACTS).map(as_json), changed_bytes(json.dumps(_FACTS).encode()))


def _open_run(case: Case, folder: Path) -> None:
    (folder / "run.json").write_bytes(case.content)
    facts = read_facts(folder / "net.weights")
    require(isinstance(facts, dict), f"facts {facts!r:.60}")
    require(isinstance(facts.get("drawn", False), bool), f"drawn {facts.get('drawn')!r:.60}")


FAMILIES = [
    Family("Darknet cfg", lambda: [as_bytes(Case("whole", text)) for text in _NETS.values()], _cfgs, _open_cfg),
    Family("Darknet weights", lambda: [Case("whole", _weight_bytes())], _weights, _open_weights),
    Family("Darknet labels", lambda: [Case("whole", _label_bytes())], _label_files, _open_labels),
    Family("Darknet list", lambda: [Case("whole", _list_bytes())], _lists, _open_list),
    Family("Darknet folder", lambda: [as_json(Case("whole", _folder(Path("FOLDER"))))], _marks, _open_mark),
    Family("Darknet run.json", lambda: [as_json(Case("whole", _FACTS))], _runs, _open_run),
]
