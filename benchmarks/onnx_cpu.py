"""An exported network under onnxruntime, in float32 and int8, against the same network under torch; one CPU thread.

    python benchmarks/onnx_cpu.py

Random weights and random 48 x 48 grey faces: a trained checkpoint takes the same time. Each way runs in its own
process, in turn, in batches of 1 and of 32; the clock covers the calls alone, after three that warm up. Torch runs the
checkpoint in eager mode under inference_mode, as predict.py does, and once more in the memory format channels last;
the ratio is against the faster of the two. The int8 ranges come from 64 random faces: for speed, not accuracy.
"""

import tempfile
import time
from pathlib import Path

import measure
import numpy as np

SIZE = 48
#: Network and number of faces in a run.
NETWORKS = {"vgg_small": 3_200, "vgg19": 192}


def write(name: str, folder: Path) -> None:
    """Write a checkpoint with random weights, and its float32 and int8 files."""
    # here, so that the measured processes import only what they measure
    import torch

    from fer.data.source import SPLITS, FaceFormat, empty_faces
    from fer.data.storage.hdf5 import write_store
    from fer.deployment.export import export_onnx, quantize
    from fer.labels import CLASSES
    from fer.models.classifier import IDENTITIES
    from fer.training.module import ClassifierModule

    model = ClassifierModule(
        model={"name": name, "library": "fer", "in_channels": 3, "dropout": 0.5}, labels=list(CLASSES),
        face={"size": SIZE, "color": "grey", "margin": 0.0}, augment={"crop": 44, "flip": 0.5}, optimizer={},
        schedule={}, epochs=1, seed=0, data={"name": "random", "file": "random.h5", "drawn": False},
    )  # fmt: skip
    identities = {name: torch.zeros(0, dtype=torch.int64) for name in IDENTITIES}
    parts = {"hyper_parameters": dict(model.hparams), "state_dict": model.state_dict(), "identities": identities}
    torch.save(parts, folder / "torch.ckpt")
    blocks = []
    for split in ("train", "val"):
        faces = empty_faces(64, FaceFormat(SIZE))
        faces.image = np.random.default_rng(0).integers(0, 256, faces.image.shape, np.uint8)
        faces.split[:] = SPLITS.index(split)
        blocks.append(faces)
    write_store(folder / "random.h5", lambda: blocks, CLASSES, ("random",), FaceFormat(SIZE), False, {})
    export_onnx(folder / "torch.ckpt", folder / "float32.onnx")
    quantize(folder / "float32.onnx", folder / "int8.onnx", folder / "random.h5", 64)


def clock(name, call, batch: str) -> float:
    """Return the seconds of naming all faces of a run."""
    faces = np.random.default_rng(0).integers(0, 256, (int(batch), 1, SIZE, SIZE), np.uint8)
    for _ in range(3):
        call(faces)
    start = time.perf_counter()
    for _ in range(NETWORKS[name] // int(batch)):
        call(faces)
    return time.perf_counter() - start


def torch_way(layout: str):
    """Return the program that times the checkpoint in one of torch's memory formats."""

    def program(name: str, batch: str, folder: str) -> float:
        import torch

        from fer.models.checkpoint import load_checkpoint

        torch.set_num_threads(1)
        model = load_checkpoint(Path(folder, "torch.ckpt"))
        model.net.to(memory_format=getattr(torch, layout))
        with torch.inference_mode():
            return clock(name, lambda faces: model(torch.from_numpy(faces)).softmax(1).numpy(), batch)

    return program


def onnx_way(way: str):
    """Return the program that times one exported file."""

    def program(name: str, batch: str, folder: str) -> float:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        path = str(Path(folder, f"{way}.onnx"))
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return clock(name, lambda faces: session.run(["probabilities"], {"faces": faces}), batch)

    return program


PROGRAMS = {
    "torch": torch_way("contiguous_format"),
    "torch_last": torch_way("channels_last"),
    "float32": onnx_way("float32"),
    "int8": onnx_way("int8"),
}


def main() -> None:
    for name, n in NETWORKS.items():
        with tempfile.TemporaryDirectory() as folder:
            write(name, Path(folder))
            for batch in (1, 32):
                print(f"{name}, batch {batch}, {n:,} faces, 1 thread")
                best = measure.take_turns(__file__, {way: (name, str(batch), folder) for way in PROGRAMS})
                speed = {way: n / best[way]["seconds"] for way in PROGRAMS}
                reference = max(speed["torch"], speed["torch_last"])
                ours = (f"{way} {speed[way]:,.0f} (ratio {speed[way] / reference:.1f})" for way in ("float32", "int8"))
                print(f"{name}, batch {batch}: torch {reference:,.0f} faces/s; onnxruntime {', '.join(ours)}")


if __name__ == "__main__":
    measure.serve(PROGRAMS)
    main()
