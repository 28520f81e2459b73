"""Records what a darknet program says of the small nets that the tests have, in tests/darknet/recorded.

    python benchmarks/darknet_record.py PROGRAM [KIND ...]

PROGRAM is the darknet program; a KIND is the name of a file, by default all that this program can: AlexeyAB's all, with
its libdarknet.so beside it as its `make LIBSO=1` builds it, and the faults of its CPU build patched out
(docs/darknet_cfgs.md); any other `valid` alone. Each .json is {name: {"cfg": text, ...}}; the texts stay, the numbers
are written anew. layers.json: "output", all boxes of a detector as `darknet_cfgs.Program` has them or the last layer's
numbers, and "bflops" as printed. losses.json: "printed" of the first iteration on one photo twice, loss and of each
head [trained boxes, loss of all but the boxes, loss of the boxes], and the "weights" after it. trainings.json:
"printed" of all iterations on one photo twice, of noise or of one "colour", [loss, rate], with random=1 the "sizes" of
every ten of them, and the "weights" after the last. maps.json: "printed" of `detector map`, for each of THRESHOLDS the
mAP, counts [TP, FP, FN], mean IoU in %, and of each class [AP in %, TP, FP]. valid.json: by the name of the program,
of each photo whether `classifier valid` counts it for top-1 and for top-k. Weights, photos and boxes are those of
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
from darknet_cfgs import Program, run_first_iteration, train

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


def record_layers(net: dict, program_path: Path) -> dict:
    """Return the output of a net; in a process of its own, in the folder of its files."""
    from tests.darknet.formula import photo

    network = network_of(net, Path())
    program = Program(str(program_path.with_name("libdarknet.so")), Path("net.cfg"), Path("net.weights"))
    if network.heads:
        output = program.boxes(photo(network), network.classes)
    else:
        import torch

        with torch.no_grad():
            numbers = network(torch.from_numpy(photo(network))).numel()
        output = program.output(photo(network), numbers)
    return {"output": [float(f"{value:.7g}") for value in np.ravel(output)]}


def record_losses(net: dict, program: Path) -> dict:
    """Return what is printed of a net's first iteration, and its weights after it."""
    from PIL import Image

    from tests.darknet.formula import BOXES, training_photo

    network = network_of(net, Path())
    Image.fromarray(training_photo(network)).save("photo.png")
    loss, heads = run_first_iteration(Path.cwd(), program, BOXES, network.classes)
    return {"printed": [loss, heads], "weights": trained_weights(network)}


def trained_weights(network) -> list[float]:
    """Return the numbers of the net that the program saved last."""
    from fer.darknet.torch_engine.network import DarknetNetwork
    from fer.darknet.torch_engine.weights_io import load_weights
    from tests.darknet.formula import stored

    trained = DarknetNetwork(network.sections)
    load_weights(trained, Path("net_final.weights"))
    return [float(f"{value:.7g}") for value in stored(trained)]


def record_trainings(net: dict, program: Path) -> dict:
    """Return what is printed of every iteration, and the weights after the last."""
    from PIL import Image

    from tests.darknet.formula import BOXES, training_photo

    network = network_of(net, Path())
    photo = Image.fromarray(training_photo(network))
    if "colour" in net:
        photo.paste(tuple(net["colour"]), (0, 0, *photo.size))
    photo.save("photo.png")
    done = train(Path.cwd(), program, BOXES, network.classes)
    steps = [record for record in map(parsed, said(done.stdout)) if type(record).__name__ == "Step"]
    recorded = {"printed": [[step.loss, step.rate] for step in steps], "weights": trained_weights(network)}
    sizes = re.findall(r"^ (\d+) x (\d+) $", done.stdout, re.MULTILINE)
    return recorded | ({"sizes": [[int(side) for side in size] for size in sizes]} if sizes else {})


def record_maps(net: dict, program: Path) -> dict:
    """Return what `detector map` prints of a net on the formula's photos."""
    from tests.darknet.formula import scored_photos

    network = network_of(net, Path())
    photos = scored_photos(network, Path.cwd())
    Path("list").write_text("".join(f"{photo}\n" for photo in photos))
    Path("names").write_text("".join(f"class{label}\n" for label in range(network.classes)))
    Path("net.data").write_text(f"classes={network.classes}\nvalid=list\nnames=names\n")
    printed = []
    for threshold, iou in THRESHOLDS:
        command = [program, "detector", "map", "net.data", "net.cfg", "net.weights"]
        command += ["-thresh", str(threshold), "-iou_thresh", str(iou)]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        counts = re.search(r"TP = (\d+), FP = (\d+), FN = (\d+), average IoU = ([\d.]+) %", output)
        classes = re.findall(r"ap = ([\d.]+)% +\t \(TP = (\d+), FP = (\d+)\)", output)
        printed.append({
            "threshold": threshold, "iou_threshold": iou,
            "map": float(re.search(r"\(mAP@[\d.]+\) = ([\d.]+)", output)[1]),
            "counts": [int(counts[i]) for i in (1, 2, 3)], "iou": float(counts[4]),
            "classes": [[float(ap), int(tp), int(fp)] for ap, tp, fp in classes],
        })  # fmt: skip
    return {"printed": printed}


def record_valid(net: dict, program: Path) -> dict:
    """Return which of the formula's photos `classifier valid` counts, beside what other programs said of them."""
    from tests.darknet.formula import class_name, named_photos

    network_of(net, Path())
    Path("list").write_text("".join(f"{photo}\n" for photo in named_photos(Path.cwd(), net["classes"])))
    Path("labels").write_text("".join(f"{class_name(label)}\n" for label in range(net["classes"])))
    Path("net.data").write_text(f"classes={net['classes']}\nvalid=list\nlabels=labels\ntop={net['k']}\n")
    command = [program, "classifier", "valid", "net.data", "net.cfg", "net.weights"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    tops = [record for record in map(parsed, said(output)) if type(record).__name__ == "TopK"]
    assert [(top.seen, top.k) for top in tops] == [(i + 1, net["k"]) for i in range(len(tops))], output
    # printed are the shares up to each photo
    counts = np.array([[0, 0]] + [[round(top.seen * share) for share in (top.top1, top.topk)] for top in tops])
    return {"printed": net.get("printed", {}) | {dialect(program): np.diff(counts, axis=0).tolist()}}


def said(output: str) -> list[str]:
    """Return the lines of a program's output."""
    from fer.darknet.program_engine.log import LineSplitter

    splitter = LineSplitter()
    return splitter.feed(output.encode()) + splitter.close()


def parsed(line: str):
    """Return the record that a line of any program stands for, or None."""
    from fer.darknet.program_engine.log import parse_line

    return parse_line(line)


def dialect(program: Path) -> str:
    """Return the name of a program: alexeyab, pjreddie or hank."""
    from fer.darknet.program_engine.program import find_program

    return find_program(str(program)).dialect


def child(kind: str, name: str, program: Path) -> dict:
    """Return what is recorded of one net, in a process that the program may end."""
    command = [sys.executable, __file__, "--child", kind, name, str(program)]
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{name}: {done.stderr[-2000:]}")
    bflops = re.search(r"Total BFLOPS ([\d.]+)", done.stderr)
    recorded = json.loads(done.stdout.splitlines()[-1])
    return recorded | ({"bflops": float(bflops[1])} if bflops else {})


#: What is recorded of the nets of a file.
RECORDERS = {
    "layers": record_layers, "losses": record_losses, "trainings": record_trainings, "maps": record_maps,
    "valid": record_valid,
}  # fmt: skip


def main() -> None:
    program = Path(sys.argv[1]).resolve()
    for kind in sys.argv[2:] or (RECORDERS if dialect(program) == "alexeyab" else ["valid"]):
        path = RECORDED / f"{kind}.json"
        nets = json.loads(path.read_text())
        for name, net in nets.items():
            net.update(child(kind, name, program))
        # a line a value: the texts of cfgs are long, and so are the rows of numbers
        path.write_text(json.dumps(nets, indent=1, separators=(",", ": ")).replace(",\n   ", ", ") + "\n")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        kind, name, program = sys.argv[2:]
        net = json.loads((RECORDED / f"{kind}.json").read_text())[name]
        print(f"\n{json.dumps(RECORDERS[kind](net, Path(program)))}", flush=True)
        # the program's threads may still wait
        os._exit(0)
    main()
