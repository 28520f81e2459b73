"""Records what AlexeyAB's program says of the small nets that the tests have, in tests/darknet/recorded.

    python benchmarks/darknet_record.py LIBDARKNET.so [KIND ...]

LIBDARKNET.so and the program beside it as in benchmarks/darknet_cfgs.py; a KIND is the name of a file, all by default.
Each .json is {name: {"cfg": text, ...}}; the texts stay, the numbers are written anew. layers.json: "output", all boxes
of a detector as `darknet_cfgs.Program` has them or the last layer's numbers, and "bflops" as printed. losses.json:
"printed" of the first iteration on one photo twice, loss and of each head [trained boxes, loss of all but the boxes,
loss of the boxes], and the "weights" after it. maps.json: "printed" of `detector map`, for each of THRESHOLDS the mAP,
counts [TP, FP, FN], mean IoU in %, and of each class [AP in %, TP, FP]. Weights, photos and boxes are those of
tests/darknet/formula.py; what is in "files" lies beside the cfg.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from darknet_cfgs import Program, run_first_iteration

ROOT = Path(__file__).parents[1]
#: Least confidence of the detections that are counted, and least IoU.
THRESHOLDS = ((0.25, 0.5), (0.25, 0.3), (0.1, 0.3))
RECORDED = ROOT / "tests" / "darknet" / "recorded"
sys.path.insert(0, str(ROOT))


def network_of(net: dict, folder: Path):
    """Return a net with the formula's weights, its cfg and weights written to a folder."""
    from fer.darknet.formats.cfg import read_cfg
    from fer.darknet.torch_engine.network import DarknetNetwork
    from fer.darknet.torch_engine.weights_io import save_weights
    from tests.darknet.formula import fill

    for name, text in {"net.cfg": net["cfg"], **net.get("files", {})}.items():
        (folder / name).write_text(text)
    network = fill(DarknetNetwork(read_cfg(folder / "net.cfg")))
    save_weights(network, folder / "net.weights")
    return network


def record_layers(net: dict, library: str) -> dict:
    """Return the output of a net; in a process of its own, in the folder of its files."""
    from tests.darknet.formula import photo

    network = network_of(net, Path())
    program = Program(library, Path("net.cfg"), Path("net.weights"))
    if network.heads:
        output = program.boxes(photo(network), network.classes)
    else:
        import torch

        with torch.no_grad():
            numbers = network(torch.from_numpy(photo(network))).numel()
        output = program.output(photo(network), numbers)
    return {"output": [float(f"{value:.7g}") for value in np.ravel(output)]}


def record_losses(net: dict, library: str) -> dict:
    """Return what is printed of a net's first iteration, and its weights after it."""
    from PIL import Image

    from fer.darknet.torch_engine.network import DarknetNetwork
    from fer.darknet.torch_engine.weights_io import load_weights
    from tests.darknet.formula import BOXES, stored, training_photo

    network = network_of(net, Path())
    Image.fromarray(training_photo(network)).save("photo.png")
    loss, heads = run_first_iteration(Path.cwd(), library, BOXES, network.classes)
    trained = DarknetNetwork(network.sections)
    load_weights(trained, Path("net_final.weights"))
    return {"printed": [loss, heads], "weights": [float(f"{value:.7g}") for value in stored(trained)]}


def record_maps(net: dict, library: str) -> dict:
    """Return what `detector map` prints of a net on the formula's photos."""
    from tests.darknet.formula import scored_photos

    network = network_of(net, Path())
    photos = scored_photos(network, Path.cwd())
    Path("list").write_text("".join(f"{photo}\n" for photo in photos))
    Path("names").write_text("".join(f"class{label}\n" for label in range(network.classes)))
    Path("net.data").write_text(f"classes={network.classes}\nvalid=list\nnames=names\n")
    program, printed = Path(library).with_name("darknet"), []
    for threshold, iou in THRESHOLDS:
        command = [program, "detector", "map", "net.data", "net.cfg", "net.weights"]
        command += ["-thresh", str(threshold), "-iou_thresh", str(iou)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        counts = re.search(r"TP = (\d+), FP = (\d+), FN = (\d+), average IoU = ([\d.]+) %", said)
        classes = re.findall(r"ap = ([\d.]+)% +\t \(TP = (\d+), FP = (\d+)\)", said)
        printed.append({
            "threshold": threshold, "iou_threshold": iou,
            "map": float(re.search(r"\(mAP@[\d.]+\) = ([\d.]+)", said)[1]),
            "counts": [int(counts[i]) for i in (1, 2, 3)], "iou": float(counts[4]),
            "classes": [[float(ap), int(tp), int(fp)] for ap, tp, fp in classes],
        })  # fmt: skip
    return {"printed": printed}


def child(kind: str, name: str, library: str) -> dict:
    """Return what is recorded of one net, in a process that the program may end."""
    command = [sys.executable, __file__, "--child", kind, name, library]
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{name}: {done.stderr[-2000:]}")
    bflops = re.search(r"Total BFLOPS ([\d.]+)", done.stderr)
    recorded = json.loads(done.stdout.splitlines()[-1])
    return recorded | ({"bflops": float(bflops[1])} if bflops else {})


#: What is recorded of the nets of a file.
RECORDERS = {"layers": record_layers, "losses": record_losses, "maps": record_maps}


def main() -> None:
    library = str(Path(sys.argv[1]).resolve())
    for kind in sys.argv[2:] or RECORDERS:
        path = RECORDED / f"{kind}.json"
        nets = json.loads(path.read_text())
        for name, net in nets.items():
            net.update(child(kind, name, library))
        # a line a value: the texts of cfgs are long, and so are the rows of numbers
        path.write_text(json.dumps(nets, indent=1, separators=(",", ": ")).replace(",\n   ", ", ") + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        kind, name, library = sys.argv[2:]
        net = json.loads((RECORDED / f"{kind}.json").read_text())[name]
        print(f"\n{json.dumps(RECORDERS[kind](net, library))}", flush=True)
        # the program's threads may still wait
        os._exit(0)
    main()
