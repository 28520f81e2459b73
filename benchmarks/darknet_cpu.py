"""Darknet nets under torch, batch normalisation worked in, against OpenCV's dnn, which reads the same files; on a CPU.

    python benchmarks/darknet_cpu.py [THREADS] [NETWORK ...]

Random weights with the batch statistics of random photos: a trained net takes the same time. One photo at a time, from
the pixels in the net's size to what the net says, a detector's boxes decoded. Each way runs in its own process, in
turn; the clock covers the calls alone, after three that warm up. OpenCV runs in its own best way, with Winograd.
"""

import sys
import tempfile
import time
from pathlib import Path

import measure
import numpy as np

#: Network, side of its input in pixels, and photos in a run.
NETWORKS = {
    "classifier_tiny": (224, 150), "v3_tiny": (256, 75), "v4_tiny": (256, 75), "classifier_omega": (256, 15),
}  # fmt: skip
CLASSES = 7


def write(name: str, folder: Path) -> None:
    """Write the cfg and .weights of a network that could have been trained."""
    # here, so that the measured processes import only what they measure
    import torch

    from fer.darknet.design.architectures import recipe
    from fer.darknet.design.fit import fit
    from fer.darknet.formats.cfg import render
    from fer.darknet.torch_engine.network import DarknetNetwork
    from fer.darknet.torch_engine.weighted import BatchNorm
    from fer.darknet.torch_engine.weights_io import save_weights

    torch.manual_seed(0)
    network = DarknetNetwork(fit(recipe(name), {"size": NETWORKS[name][0]}, CLASSES, 1000))
    for module in network.modules():
        if isinstance(module, BatchNorm):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.rand(2, 3, 64, 64))
    (folder / "net.cfg").write_text(render(network.sections))
    (folder / "emotion.names").write_text("".join(f"class{number}\n" for number in range(CLASSES)))
    save_weights(network, folder / "net.weights")


def clock(name: str, call) -> float:
    """Return the seconds of a run of photos, one by one."""
    size, photos = NETWORKS[name]
    pixels = np.random.default_rng(0).random((1, 3, size, size), np.float32)
    for _ in range(3):
        call(pixels)
    start = time.perf_counter()
    for _ in range(photos):
        call(pixels)
    return time.perf_counter() - start


def torch_way(name: str, threads: str, folder: str) -> float:
    import torch

    from fer.darknet.formats.weights import open_net
    from fer.darknet.torch_engine.inference import open_on
    from fer.system.memory import keep_freed_memory

    torch.set_num_threads(int(threads))
    keep_freed_memory()  # as predict.py does
    network, _ = open_on(open_net(Path(folder, "net.weights")), "cpu")
    with torch.inference_mode():
        # as predict.py gives them, whose pictures have their channels last
        return clock(
            name, lambda pixels: network(torch.from_numpy(pixels).to(memory_format=torch.channels_last)).numpy()
        )


def opencv_way(name: str, threads: str, folder: str) -> float:
    import cv2

    cv2.setNumThreads(int(threads))
    network = cv2.dnn.readNetFromDarknet(str(Path(folder, "net.cfg")), str(Path(folder, "net.weights")))
    outputs = network.getUnconnectedOutLayersNames()

    def call(pixels):
        network.setInput(pixels)
        return network.forward(outputs)

    return clock(name, call)


PROGRAMS = {"torch": torch_way, "opencv": opencv_way}


def main() -> None:
    threads, *names = sys.argv[1:] or ["2"]
    for name in names or NETWORKS:
        size, photos = NETWORKS[name]
        with tempfile.TemporaryDirectory() as folder:
            write(name, Path(folder))
            print(f"{name} at {size}, {photos} photos one by one, {threads} threads")
            best = measure.take_turns(__file__, {way: (name, threads, folder) for way in PROGRAMS})
            ms = {way: 1000 * best[way]["seconds"] / photos for way in PROGRAMS}
            print(
                f"{name}: torch {ms['torch']:.1f} ms a photo, OpenCV dnn {ms['opencv']:.1f} ms "
                f"(torch takes {ms['torch'] / ms['opencv']:.2f} of its time)"
            )


if __name__ == "__main__":
    measure.serve(PROGRAMS)
    main()
