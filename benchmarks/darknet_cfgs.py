"""Every .cfg of a folder: does it build under torch, and does it say what AlexeyAB's program says of the same photo?

    [CELLS=2] python benchmarks/darknet_cfgs.py FOLDER LIBDARKNET.so [NAME ...] [--second=LIBDARKNET.so] [--losses]

FOLDER and its folders hold the .cfg files, of which a NAME picks those whose path has it; LIBDARKNET.so is the program
as its `make LIBSO=1` builds it, the program itself beside it. Where it ends on a cfg the second library is asked, such
as Debian's, which knows ResNet's strided sums. Weights are random with the batch statistics of random photos, written
here and read by both. A net of convolutions alone takes an input of CELLS of its largest strides a side, the others
keep their size. Compared are all boxes of all heads, before any is left out: centre and size as fractions of the input,
and each class's confidence; of a classifier its probabilities, else the last layer's output. A difference counts in
units of the number itself where that is over 1. The table is Markdown; BFLOPs are beside the program's own.

With --losses: what both print of the first iteration of a detector on one photo twice, unchanged, and of each head how
many boxes are trained, and the losses of all but the boxes and of the boxes.
"""

import argparse
import ctypes
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

#: Photos whose statistics the normalisations take.
PHOTOS = 8
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
    """The program's library with one net in it, whose numbers it gives for a photo; Debian's gives no boxes."""

    def __init__(self, library: str, cfg: Path, weights: Path) -> None:
        self.lib = lib = ctypes.CDLL(str(Path(library).resolve()))
        if not hasattr(lib, "load_network_custom"):
            lib.load_network.restype = ctypes.c_void_p
            lib.network_predict.restype = ctypes.POINTER(ctypes.c_float)
            lib.network_predict.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
            self.net, self.predict = lib.load_network(str(cfg).encode(), str(weights).encode(), 0), lib.network_predict
            return
        lib.load_network_custom.restype = ctypes.c_void_p
        lib.load_network_custom.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int]
        lib.network_predict_ptr.restype = ctypes.POINTER(ctypes.c_float)
        lib.network_predict_ptr.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        lib.get_network_boxes.restype = ctypes.POINTER(_Detection)
        lib.get_network_boxes.argtypes = [
            ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_float, ctypes.c_float, ctypes.c_void_p,
            ctypes.c_int, ctypes.c_void_p, ctypes.c_int,
        ]  # fmt: skip
        self.predict = lib.network_predict_ptr
        self.net = lib.load_network_custom(str(cfg).encode(), str(weights).encode(), 0, 1)

    def output(self, photo: np.ndarray, numbers: int) -> np.ndarray:
        """Return the first so many numbers of the last layer that is no [cost]."""
        photo = np.ascontiguousarray(photo, np.float32)
        output = self.predict(self.net, photo.ctypes.data)
        return np.ctypeslib.as_array(output, (numbers,)).copy()

    def boxes(self, photo: np.ndarray, classes: int) -> np.ndarray:
        """Return all boxes (N, 4 + classes): x, y, width, height in fractions of the photo, confidences."""
        self.output(photo, 1)
        count = ctypes.c_int()
        found = self.lib.get_network_boxes(self.net, 1, 1, -1e30, 0.5, None, 1, ctypes.byref(count), 0)
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


def smaller(sections, cells: int) -> None:
    """Make a net's input so many of its largest strides wide, where it has no fixed size."""
    from fer.darknet.formats.cfg import largest_stride

    net = sections[0].options
    if not SIZED & {section.kind for section in sections}:
        least = cells * max(32, largest_stride(sections))
        for key in ("width", "height"):
            if int(net[key]) > least:
                net[key] = str(least)
    # with contrastive= the program ends at one photo, though it is then given one at a time
    net.update(batch="2" if "contrastive" in net else "1", subdivisions="1")


def trained_like(sections):
    """Return the net of sections with weights as if it had been trained, in eval mode, and a photo that it was on."""
    import torch

    from fer.darknet.torch_engine.network import DarknetNetwork
    from fer.darknet.torch_engine.weighted import BatchNorm, Convolutional

    torch.manual_seed(0)
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
        # another photo's numbers could leave the range that so few photos have, and grow from layer to layer
        photos = torch.rand(PHOTOS, channels, height, width)
        network.train()(photos)
    return network.eval(), photos[:1]


def compare(cfg: str, library: str) -> Row:
    """Compare one cfg; called in a process of its own, which the program may end."""
    import torch

    from fer.darknet.formats.cfg import read_cfg, render
    from fer.darknet.torch_engine.network import fuse, summary
    from fer.darknet.torch_engine.onednn import pack
    from fer.darknet.torch_engine.weighted import BatchNorm
    from fer.darknet.torch_engine.weights_io import save_weights
    from fer.errors import InputError

    row = Row(cfg)
    try:
        sections = read_cfg(Path(cfg))
        smaller(sections, int(os.environ.get("CELLS", 2)))
        row.size = "x".join(sections[0].options.get(key, "?") for key in ("width", "height"))
        row.layers = len(sections) - 1
        network, photo = trained_like(sections)
    except InputError as error:
        row.said = str(error)
        return row
    with tempfile.TemporaryDirectory() as folder:
        path, weights = Path(folder, "net.cfg"), Path(folder, "net.weights")
        path.write_text(render(sections))
        save_weights(network, weights)
        program = Program(library, path, weights)
    if not hasattr(program.lib, "load_network_custom"):
        row.said = "AlexeyAB's program refuses it; compared with Debian's"
        for module in network.modules():
            if isinstance(module, BatchNorm):
                # which divides by sqrt(variance) + 0.000001
                module.running_var.copy_((module.running_var.sqrt() + 1e-6) ** 2)
                module.eps = 0.0
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
            theirs = program.boxes(photo.numpy(), network.classes)
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


def train(
    folder: Path, program: Path, boxes: Sequence[Sequence[float]], classes: int
) -> subprocess.CompletedProcess[str]:
    """Let the program train net.cfg with net.weights on photo.png, all of ``folder``, as its max_batches= says."""
    (folder / "photo.txt").write_text("".join(" ".join(map(str, box)) + "\n" for box in boxes))
    (folder / "list").write_text(f"{folder / 'photo.png'}\n")
    (folder / "names").write_text("".join(f"class{label}\n" for label in range(classes)))
    (folder / "net.data").write_text(f"classes={classes}\ntrain=list\nvalid=list\nnames=names\nbackup=.\n")
    return subprocess.run(
        [program, "detector", "train", "net.data", "net.cfg", "net.weights", "-dont_show", "-clear"],
        cwd=folder, capture_output=True, text=True, errors="replace", timeout=900,
    )  # fmt: skip


def run_first_iteration(
    folder: Path, program: Path, boxes: Sequence[Sequence[float]], classes: int
) -> tuple[float, list[list[float]]]:
    """Let the program `train`, and return what it prints of the first iteration.

    That is the loss, and of each head how many boxes are trained, the loss of all but the boxes and that of the boxes.
    """
    done = train(folder, program, boxes, classes)
    loss = re.search(r"^ *1: ([-+.\w]+), ", done.stdout, re.MULTILINE)
    if loss is None:
        raise RuntimeError(f"the program printed no loss: {done.stderr[-300:]}")
    found = re.findall(r"count: (\d+), class_loss = ([-.\w]+), iou_loss = ([-.\w]+)", done.stderr)
    heads = (folder / "net.cfg").read_text().count("[yolo]")
    return float(loss[1]), [[float(value) for value in head] for head in found[:heads]]


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
        # a photo twice has half of the numbers that two have
        smaller(sections, 4)
        classes = classes_of(sections)
        sections[0].options.update(AS_IT_IS)
        for section in sections:
            if section.kind == "yolo":
                section.options.update(jitter="0", random="0", resize="1")
            # the program's CPU reads memory that it never gets for stopbackward=1
            section.options.pop("stopbackward", None)
        network, _ = trained_like(sections)
        loss = YoloLoss(sections)
        DarknetTraining(sections, ["photo_class0.png"], [f"class{label}" for label in range(classes)], 0)
    except InputError as error:
        return row | {"said": str(error)}
    width, height, channels = network.size
    # one box a class, apart from each other, of sizes that different anchors are like
    boxes = [
        [label % classes, 0.2 + 0.6 * (label % 2), 0.25 + 0.5 * (label // 2), side, 0.8 * side]
        for label, side in enumerate((0.08, 0.2, 0.4, 0.15))
    ]
    photo = np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        Image.fromarray(photo).save(Path(folder, "photo.png"))
        Path(folder, "net.cfg").write_text(render(sections))
        save_weights(network, Path(folder, "net.weights"))
        theirs, heads = run_first_iteration(Path(folder), Path(library).resolve().with_name("darknet"), boxes, classes)
    pixels = torch.from_numpy(photo).permute(2, 0, 1).float()[None].expand(2, -1, -1, -1) / 255
    with torch.no_grad():
        value, statistics = loss(network.train()(pixels), torch.tensor(boxes).expand(2, -1, -1))
    ours = zip(*(statistics[key].tolist() for key in ("count", "class_loss", "iou_loss")), strict=True)
    return row | {"ours": _told(value, ours), "theirs": _told(theirs, heads)}


def _told(loss: float, heads: Iterable[Sequence[float]]) -> str:
    return f"{loss:.7g} (" + "; ".join(f"{count:.0f}, {a:.7g}, {b:.5g}" for count, a, b in heads) + ")"


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


def first(cfg: Path, library: str) -> dict:
    """Return `first_losses` of a process of its own."""
    done = subprocess.run([sys.executable, __file__, "--first", str(cfg), library], capture_output=True, text=True)
    if done.returncode:
        return {"ours": "", "theirs": "", "said": done.stderr.strip().splitlines()[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("library")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--second")
    parser.add_argument("--losses", action="store_true")
    given = parser.parse_intermixed_args()
    cfgs = [path for path in sorted(given.folder.rglob("*.cfg"))]
    cfgs = [path for path in cfgs if not given.names or any(name in str(path) for name in given.names)]
    if given.losses:
        print("| cfg | first loss here | the program's | |\n|---|---|---|---|")
        for path in cfgs:
            row = first(path, given.library)
            print(f"| {path.relative_to(given.folder)} | {row['ours']} | {row['theirs']} | {row['said']} |", flush=True)
        return
    print(f"| cfg | input | layers | largest difference | of | BFLOPs | the program's | |\n{'|---' * 8}|")
    rows = []
    for path in cfgs:
        row = child(path, given.library)
        if given.second and row["said"].startswith("ended with"):
            row = child(path, given.second)
        rows.append(row)
        difference = "" if row["difference"] is None else f"{row['difference']:.1e}"
        print(
            f"| {path.relative_to(given.folder)} | {row['size']} | {row['layers']} | {difference} | "
            f"{row['largest']:.2g} | {row['bflops']} | {row.get('theirs', '')} | "
            f"{row['said'].replace(str(path), path.name)} |",
            flush=True,
        )
    built = [row["difference"] for row in rows if row["difference"] is not None]
    print(f"{len(rows)} cfgs, {len(built)} built, {sum(part < 1e-2 for part in built)} agree within 0.01")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    if sys.argv[1:2] == ["--child"]:
        print(json.dumps(vars(compare(*sys.argv[2:]))), flush=True)
        # the program's threads may still wait
        os._exit(0)
    if sys.argv[1:2] == ["--first"]:
        print(json.dumps(first_losses(*sys.argv[2:])))
        sys.exit()
    main()
