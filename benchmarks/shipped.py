"""Each shipped network on one CPU core, 32 faces at a time: against VGG19, the seed's network.

    python benchmarks/shipped.py

Random 48 x 48 grey faces through `fer.prediction`'s `open_network`, as predict.py has it; VGG19 has random weights.
Each runs in its own process, in turn; the clock starts when the network is loaded and warm. Target: over 300 faces/s.
"""

import tempfile
import time
from pathlib import Path

import measure
import numpy as np

from fer.models.pretrained import names

FACES, BATCHES = 32, 20


def run(ckpt: str) -> float:
    """Return the seconds for all batches, on one thread."""
    import torch

    from fer.prediction.backends import open_network
    from fer.system.memory import keep_freed_memory

    torch.set_num_threads(1)
    keep_freed_memory()
    network = open_network(ckpt, "cpu")
    faces = np.random.default_rng(0).integers(0, 256, (FACES, *network.face.shape), np.uint8)
    network(faces)
    start = time.perf_counter()
    for _ in range(BATCHES):
        network(faces)
    return time.perf_counter() - start


def main() -> None:
    """Run the networks in turn and print rates and ratios."""
    from onnx_cpu import write

    with tempfile.TemporaryDirectory() as folder:
        write("vgg19", Path(folder))
        best = measure.take_turns(
            __file__, {"vgg19": (str(Path(folder, "torch.ckpt")),), **{name: (name,) for name in names()}}
        )
    for name, result in best.items():
        rate = FACES * BATCHES / result["seconds"]
        print(f"{name}: {rate:,.0f} faces/s on one core, {best['vgg19']['seconds'] / result['seconds']:.1f} x vgg19's")


if __name__ == "__main__":
    measure.serve(dict.fromkeys(("vgg19", *names()), run))
    main()
