"""Every .cfg of a folder: does it build under torch, and does it say what AlexeyAB's program says of the same photo?

    python benchmarks/darknet_cfgs.py FOLDER LIBDARKNET.so [NAME ...] [--out=TABLE.md]

FOLDER and its folders hold the .cfg files, of which a NAME picks those whose path has it; LIBDARKNET.so is the program
as its `make LIBSO=1` builds it (docs/darknet.md says how). Weights are random with the batch statistics of random
photos, written here and read by both. A net of convolutions alone is made as small as its stride lets it, the others
keep their size. Compared are all boxes of all heads, before any is left out: centre and size as fractions of the input,
and each class's confidence; of a classifier its probabilities, else the last layer's output. A difference counts in
units of the number itself where that is over 1. The table is Markdown; BFLOPs are beside the program's own.
"""

import ctypes
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

#: Photos whose statistics the normalisations take.
PHOTOS = 4
#: Kinds of layers whose nets keep the size that the cfg gives.
SIZED = {"connected", "local", "crop", "detection"}
#: [net] for one iteration on photos that are not changed.
AS_IT_IS = {
    "batch": "2", "subdivisions": "1", "max_batches": "1", "burn_in": "0", "policy": "constant",
    "learning_rate": "0.0001", "angle": "0", "hue": "0", "saturation": "1", "exposure": "1", "aspect": "1", "flip": "0",
    "mosaic": "0", "letter_box": "0", "ema_alpha": "0",
}  # fmt: skip


class _Box(ctypes.Structure):
    _fields_ = [(name, ctypes.c_float) for name in "xywh"]


class _Detection(ctypes.Structure):
    """The program's own, of its darknet.h."""

    _fields_ = [
        ("box", _Box), ("classes", ctypes.c_int), ("best", ctypes.c_int), ("prob", ctypes.POINTER(ctypes.c_float)),
        ("mask", ctypes.c_void_p), ("objectness", ctypes.c_float), ("sort_class", ctypes.c_int),
        ("uc", ctypes.c_void_p), ("points", ctypes.c_int), ("embeddings", ctypes.c_void_p),
        ("embedding_size", ctypes.c_int), ("sim", ctypes.c_float), ("track_id", ctypes.c_int),
    ]  # fmt: skip


class Program:
    """The program's library with one net in it, whose numbers it gives for a photo."""

    def __init__(self, library: str, cfg: Path, weights: Path) -> None:
        lib = ctypes.CDLL(str(Path(library).resolve()))
        lib.load_network_custom.restype = ctypes.c_void_p
        lib.load_network_custom.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int]
        lib.network_predict_ptr.restype = ctypes.POINTER(ctypes.c_float)
        lib.network_predict_ptr.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        lib.get_network_boxes.restype = ctypes.POINTER(_Detection)
        lib.get_network_boxes.argtypes = [
            ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_float, ctypes.c_float, ctypes.c_void_p,
            ctypes.c_int, ctypes.c_void_p, ctypes.c_int,
        ]  # fmt: skip
        self.lib, self.net = lib, lib.load_network_custom(str(cfg).encode(), str(weights).encode(), 0, 1)

    def output(self, photo: np.ndarray, numbers: int) -> np.ndarray:
        """Return the first so many numbers of the last layer that is no [cost]."""
        photo = np.ascontiguousarray(photo, np.float32)
        output = self.lib.network_predict_ptr(self.net, photo.ctypes.data)
        return np.ctypeslib.as_array(output, (numbers,)).copy()

    def boxes(self, photo: np.ndarray, width: int, height: int, classes: int) -> np.ndarray:
        """Return all boxes (N, 4 + classes): x, y, width, height, confidences."""
        self.output(photo, 1)
        count = ctypes.c_int()
        found = self.lib.get_network_boxes(self.net, width, height, -1e30, 0.5, None, 1, ctypes.byref(count), 0)
        rows = [[box.box.x, box.box.y, box.box.w, box.box.h, *box.prob[:classes]] for box in found[: count.value]]
        return np.array(rows)


@dataclass
class Row:
    """A cfg in the table."""

    name: str
    size: str = ""
    layers: int = 0
    difference: float | None = None
    largest: float = 0
    bflops: str = ""
    said: str = ""


def smaller(sections) -> None:
    """Make a net's input as small as its stride lets it, where it has no fixed size."""
    from fer.darknet.formats.cfg import cell_side

    net = sections[0].options
    if not SIZED & {section.kind for section in sections}:
        # two cells to a side, so that normalisations have several numbers
        least = 2 * max(32, cell_side(sections))
        for key in ("width", "height"):
            if int(net[key]) > least:
                net[key] = str(least)
    net.update(batch="1", subdivisions="1")


def trained_like(sections, seed: int = 0):
    """Return the net of sections with weights as if it had been trained, in eval mode."""
    import torch

    from fer.darknet.torch_engine.network import DarknetNetwork
    from fer.darknet.torch_engine.weighted import BatchNorm, Convolutional

    torch.manual_seed(seed)
    network = DarknetNetwork(sections)
    width, height, channels = network.size
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.empty_like(parameter).normal_(0, 0.1))
        for module in network.modules():
            if isinstance(module, BatchNorm):
                module.momentum = 1.0
        for head in network.heads:
            # boxes of a size that a trained net's may have: the exponential of random numbers is anything
            before = network.layers[network.inputs[head][0]]
            if isinstance(before, Convolutional):
                before.linear.weight.mul_(0.2)
        network.train()(torch.rand(PHOTOS, channels, height, width))
    return network.eval()


def compare(cfg: str, library: str) -> Row:
    """Compare one cfg; called in a process of its own, which the program may end."""
    import torch

    from fer.darknet.formats.cfg import read_cfg, render
    from fer.darknet.torch_engine.network import fuse, summary
    from fer.darknet.torch_engine.onednn import pack
    from fer.darknet.torch_engine.weights_io import save_weights
    from fer.errors import InputError

    row = Row(cfg)
    try:
        sections = read_cfg(Path(cfg))
        smaller(sections)
        row.size = "x".join(sections[0].options.get(key, "?") for key in ("width", "height"))
        row.layers = len(sections) - 1
        network = trained_like(sections)
    except InputError as error:
        row.said = str(error)
        return row
    width, height, channels = network.size
    with tempfile.TemporaryDirectory() as folder:
        path, weights = Path(folder, "net.cfg"), Path(folder, "net.weights")
        path.write_text(render(sections))
        save_weights(network, weights)
        program = Program(library, path, weights)
    photo = torch.rand(1, channels, height, width, generator=torch.Generator().manual_seed(1))
    ways = [network, fuse(network)]
    pack(ways[1])
    row.difference, row.bflops = 0.0, re.search(r"Total BFLOPs ([\d.]+)", summary(sections))[1]
    for way in ways:
        with torch.inference_mode():
            ours = way(photo)[0].double().numpy()
        if network.heads:
            ours = np.concatenate([ours[:, :4], ours[:, 4:5] * ours[:, 5:]], axis=1)
            if any(section.options.get("tree") for section in sections):
                ours[:, 4:] = np.where(ours[:, 4:] > 0, way(photo)[0].detach().double().numpy()[:, 5:], 0)
            theirs = program.boxes(photo.numpy(), width, height, network.classes)
        else:
            theirs = program.output(photo.numpy(), ours.size).reshape(ours.shape)
        if ours.shape != theirs.shape:
            row.said, row.difference = f"{ours.shape} numbers here, {theirs.shape} there", None
            return row
        with np.errstate(invalid="ignore"):
            apart = np.where(ours == theirs, 0, np.abs(ours - theirs) / np.maximum(1, np.abs(theirs)))
        # NaN must not pass for the smaller
        row.difference = float(np.maximum(row.difference, apart.max()))
        row.largest = float(np.abs(theirs).max())
    return row


def first_losses(cfg: str, library: str) -> dict:
    """Return the loss of a detector's first iteration here and there, and its heads' own; a photo twice, as it is."""
    import torch
    from PIL import Image

    from fer.darknet.formats.cfg import classes_of, read_cfg, render
    from fer.darknet.torch_engine.training.losses import YoloLoss
    from fer.darknet.torch_engine.training.module import DarknetTraining
    from fer.darknet.torch_engine.weights_io import save_weights
    from fer.errors import InputError

    row = {"name": cfg, "ours": "", "theirs": "", "said": ""}
    try:
        sections = read_cfg(Path(cfg))
        smaller(sections)
        classes = classes_of(sections)
        sections[0].options.update(AS_IT_IS)
        for section in sections:
            if section.kind == "yolo":
                section.options.update(jitter="0", random="0", resize="1")
            # the program's CPU reads memory that it never gets for these
            section.options.pop("stopbackward", None)
        network = trained_like(sections)
        loss = YoloLoss(sections)
    except InputError as error:
        return row | {"said": str(error)}
    width, height, channels = network.size
    random = np.random.default_rng(0)
    # one box a class, apart from each other, of sizes that different anchors are like
    boxes = [
        [label % classes, 0.2 + 0.6 * (label % 2), 0.25 + 0.5 * (label // 2), side, 0.8 * side]
        for label, side in enumerate((0.08, 0.2, 0.4, 0.15))
    ]
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        photo = random.integers(0, 256, (height, width, channels), np.uint8)
        Image.fromarray(photo).save(where / "photo.png")
        (where / "photo.txt").write_text("".join(" ".join(map(str, box)) + "\n" for box in boxes))
        (where / "list").write_text(f"{where / 'photo.png'}\n")
        (where / "names").write_text("".join(f"class{label}\n" for label in range(classes)))
        (where / "net.data").write_text(f"classes={classes}\ntrain=list\nvalid=list\nnames=names\nbackup=.\n")
        (where / "net.cfg").write_text(render(sections))
        save_weights(network, where / "net.weights")
        program = Path(library).resolve().with_name("darknet")
        done = subprocess.run(
            [program, "detector", "train", "net.data", "net.cfg", "net.weights", "-dont_show", "-clear"],
            cwd=where, capture_output=True, text=True, errors="replace", timeout=900,
        )  # fmt: skip
        try:
            DarknetTraining(sections, [str(where / "photo.png")], [f"class{label}" for label in range(classes)], 0)
        except InputError as error:
            row["said"] = str(error)
    theirs = re.search(r"^ *1: ([-+.\w]+), ", done.stdout, re.MULTILINE)
    heads = re.findall(r"count: (\d+), class_loss = ([-.\d]+), iou_loss = ([-.\d]+)", done.stderr)[: len(network.heads)]
    pixels = torch.from_numpy(photo).permute(2, 0, 1).float()[None].expand(2, -1, -1, -1) / 255
    truths = torch.tensor(boxes).expand(2, -1, -1)
    with torch.no_grad():
        value, statistics = loss(network.train()(pixels), truths)
    ours = [
        f"{int(count)} {a:.6f} {b:.6f}"
        for count, a, b in zip(*(statistics[key] for key in ("count", "class_loss", "iou_loss")), strict=True)
    ]
    return row | {
        "ours": f"{value:.6f} ({', '.join(ours)})",
        "theirs": f"{theirs[1] if theirs else done.stderr[-200:]} ({', '.join(' '.join(head) for head in heads)})",
    }


def child(cfg: Path, library: str) -> dict:
    """Return the row of a cfg; what the process says last is its reason where it ends without one."""
    command = [sys.executable, __file__, "--child", str(cfg), library]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=1800)
    rows = [line for line in done.stdout.splitlines() if line.startswith('{"name"')]
    if not rows:
        said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        return vars(Row(str(cfg), said=f"ended with {done.returncode}: {said[-1] if said else 'nothing said'}"))
    theirs = re.search(r"Total BFLOPS ([\d.]+)", done.stderr)
    return json.loads(rows[0]) | {"theirs": theirs[1] if theirs else ""}


def main() -> None:
    if "--losses" in sys.argv:
        folder, library, *names = [word for word in sys.argv[1:] if word[:2] != "--"]
        for path in sorted(Path(folder).rglob("*.cfg")):
            if not names or any(name in str(path) for name in names):
                done = subprocess.run(
                    [sys.executable, __file__, "--first", str(path), library], capture_output=True, text=True
                )
                print(path.name, done.stdout[-1500:], done.stderr[-1500:] if done.returncode else "", flush=True)
        return
    flags = {key: value for key, _, value in (word[2:].partition("=") for word in sys.argv[1:] if word[:2] == "--")}
    folder, library, *names = [word for word in sys.argv[1:] if word[:2] != "--"]
    lines = [
        "| cfg | input | layers | largest difference | of | BFLOPs, the program's | |",
        "|---|---|---|---|---|---|---|",
    ]
    agree = built = 0
    cfgs = [
        path for path in sorted(Path(folder).rglob("*.cfg")) if not names or any(name in str(path) for name in names)
    ]
    for path in cfgs:
        start = time.perf_counter()
        row = child(path, library)
        built += row["difference"] is not None
        good = row["difference"] is not None and row["difference"] < 1e-2
        agree += good
        difference = "" if row["difference"] is None else f"{row['difference']:.1e}"
        said = row["said"].replace(str(path), path.name)
        lines.append(
            f"| {path.relative_to(folder)} | {row['size']} | {row['layers']} | {difference} | {row['largest']:.2g} | "
            f"{row['bflops']}, {row.get('theirs', '')} | {said} |"
        )
        print(lines[-1], f"{time.perf_counter() - start:.0f} s", flush=True)
    print(f"{len(cfgs)} cfgs, {built} built, {agree} agree")
    if "out" in flags:
        Path(flags["out"]).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(vars(compare(*sys.argv[2:]))), flush=True)
        # the program's threads may still wait
        os._exit(0)
    if sys.argv[1:2] == ["--first"]:
        print(json.dumps(first_losses(*sys.argv[2:]), indent=1))
        sys.exit()
    main()
