"""One training epoch through the whole framework against the bare forward / backward / step loop on tensors in memory.

    python benchmarks/train_epoch.py

The framework reads a prepared file, crops, flips, keeps its metrics, logs and draws its bar. The bare loop has the
same network, optimiser, clipping, precision and batch, on float faces that are already cropped. Both run in turn; the
best of the turns counts. The framework's second epoch is timed: in its first it also draws its input. Target: at most
1.05 times the bare loop's time, for VGG19 as the original has it and for a network whose bare step does at least 2,000
faces a second on 2 cores.

Where there is a GPU it is VGG19 on as many faces as FER2013 has for training, kept there, in bfloat16 at batch 128,
with the network compiled and not. Targets: 250 epochs in under 5 minutes, at least 0.9 of the bare loop's speed.
"""

import tempfile
import time
from pathlib import Path

import measure
import numpy as np
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from torch.nn import functional

from fer.config.train import check_train
from fer.data.source import SPLITS, FaceFormat, empty_faces
from fer.data.storage.hdf5 import write_store
from fer.labels import CLASSES
from fer.models.registry import build_network
from fer.targets import build
from fer.training.run import assemble

#: Overrides of the config, the faces of an epoch.
CASES = {
    "vgg19, float32": (["experiment=seed_fer2013_vgg19"], 448),
    "vgg_small, bfloat16, channels last": (["experiment=cpu_fer2013", "trainer.precision=bf16-mixed"], 19_200),
}
_GPU = [
    "experiment=wujie_fer2013_vgg19", "trainer.accelerator=gpu", "trainer.precision=bf16-mixed", "channels_last=true",
    "trainer.benchmark=true", "data.keep=device",
]  # fmt: skip
GPU_CASES = {
    "vgg19, bfloat16, GPU": (_GPU, 28_709),
    "vgg19, bfloat16, GPU, compiled": ([*_GPU, "compile=true"], 28_709),
}
#: Epochs that are run; the last is timed. On a GPU the first ones also compile and search for the fastest convolutions.
EPOCHS, GPU_EPOCHS = 2, 4


def wait() -> None:
    """Wait until the GPU, if there is one, has done what it was told to."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Clock(pl.Callback):
    """Seconds from the start of the last epoch to the end of its last step."""

    def on_train_epoch_start(self, trainer, pl_module):
        wait()
        self.start = time.perf_counter()

    def on_validation_start(self, trainer, pl_module):
        wait()
        self.seconds = time.perf_counter() - self.start


def write_faces(path: Path, n: int) -> None:
    generator = np.random.default_rng(0)
    blocks = []
    for split, rows in (("train", n), ("val", 64)):
        faces = empty_faces(rows, FaceFormat())
        faces.image = generator.integers(0, 256, faces.image.shape, np.uint8)
        faces.label = generator.integers(0, len(CLASSES), rows)
        faces.split[:] = SPLITS.index(split)
        faces.path = [f"{split}{i}" for i in range(rows)]
        blocks.append(faces)
    write_store(path, lambda: blocks, CLASSES, ("random",), FaceFormat(), False, {})


def config_for(name: str, file: str) -> dict:
    with initialize_config_dir(str(Path(__file__).resolve().parents[1] / "conf"), version_base="1.3"):
        overrides, epochs = (CASES | GPU_CASES)[name][0], GPU_EPOCHS if name in GPU_CASES else EPOCHS
        return check_train(compose("train", [*overrides, f"data.file={file}", f"trainer.max_epochs={epochs}"]))


def framework(name: str, file: str) -> float:
    """Train some epochs as train.py does; returns the seconds of the last."""
    with tempfile.TemporaryDirectory() as folder:
        trainer, model, data, _ = assemble(config_for(name, file), Path(folder))
        clock = Clock()
        # first, so that no other callback's work at the start of the epoch is left out
        trainer.callbacks.insert(0, clock)
        trainer.fit(model, datamodule=data)
    return clock.seconds


def bare(name: str, file: str) -> float:
    """Run the loop for some epochs; returns the seconds of the last."""
    config, n = config_for(name, file), (CASES | GPU_CASES)[name][1]
    device = "cuda" if name in GPU_CASES else "cpu"
    torch.backends.cudnn.benchmark = bool(config["trainer"]["benchmark"])
    network = build_network(config["model"], len(CLASSES)).to(device)
    if config["channels_last"]:
        network.to(memory_format=torch.channels_last)
    if config["compile"]:
        network.compile()
    optimizer = build(config["optimizer"], params=network.parameters())
    size, batch = config["augment"]["crop"], config["batch_size"]
    faces, labels = torch.rand(n, 1, size, size, device=device), torch.randint(0, len(CLASSES), (n,), device=device)
    half = config["trainer"]["precision"] == "bf16-mixed"
    for _ in range(config["trainer"]["max_epochs"]):
        wait()
        start = time.perf_counter()
        for first in range(0, n, batch):
            with torch.autocast(device, torch.bfloat16, enabled=half):
                logits = network(faces[first : first + batch])
                loss = functional.cross_entropy(logits, labels[first : first + batch])
            optimizer.zero_grad()
            loss.backward()
            if clip := config["trainer"]["gradient_clip_val"]:
                torch.nn.utils.clip_grad_value_(network.parameters(), clip)
            optimizer.step()
        wait()
        seconds = time.perf_counter() - start
    return seconds


def main() -> None:
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    cases = CASES
    if torch.cuda.is_available():
        print(torch.cuda.get_device_name())
        # each run of a compiled network takes a minute before its first step
        cases, measure.TURNS = GPU_CASES, 2
    for name, (_, n) in cases.items():
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "faces.h5"
            write_faces(file, n)
            print(f"{name}, {n:,} faces")
            best = measure.take_turns(__file__, {"framework": (name, file), "bare": (name, file)})
        ours, reference = best["framework"]["seconds"], best["bare"]["seconds"]
        print(
            f"{name}: framework {n / ours:,.0f} faces/s, bare loop {n / reference:,.0f} faces/s, "
            f"{ours / reference:.3f} times the bare loop's time (target at most 1.05)"
            if name in CASES
            else f"{name}: 250 epochs in {250 * ours:,.0f} s (target 300), {n / ours:,.0f} faces/s, "
            f"{reference / ours:.3f} of the bare loop's {n / reference:,.0f} faces/s (target 0.9)"
        )


if __name__ == "__main__":
    measure.serve({"framework": framework, "bare": bare})
    main()
