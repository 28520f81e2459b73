"""500 photos through a Predictor against reading, searching, cropping and naming them one after another.

    python benchmarks/predict_photos.py CHECKPOINT [--photos 500]

Draws the photos (120 to 360 pixels a side, up to three faces). Each program runs in its own process, in turn; the clock
starts when the network is loaded. Both search alike and crop alike, and must give the same boxes and, to 1e-4, the same
probabilities. ``serial`` calls the torch model with the faces of one photo at a time and leaves OpenCV its own threads;
``ours`` is one ``Predictor.batch`` with OpenCV's threads off and freed memory kept, as predict.py has it. Target: at
least 2 times faster on 2 cores. First each photo is taken as a face (faces=whole), then its faces are searched with
Haar's cascade, which takes most of the time then and which ``serial``, too, runs on all cores.

Then the checkpoint's network on 32 faces at once: torch against onnxruntime with the exported file, both on the CPU.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import cv2
import measure
import numpy as np
import torch

from fer import Predictor
from fer.data.photos import crop_face, read_photo
from fer.data.source import PhotoLimits
from fer.data.synthetic.dataset import draw_sample
from fer.deployment.export import export_onnx
from fer.models.checkpoint import load_checkpoint
from fer.prediction.backends import open_network
from fer.prediction.detectors import open_detector
from fer.system.memory import keep_freed_memory

#: Of the drawn set: five photos that are broken on purpose are left out.
BROKEN = 5
BATCHES, FACES = 50, 32

Result = list[tuple[tuple[float, ...], list[float]]]


def photos(folder: str, count: int) -> list[Path]:
    """Return the first ``count`` photos that can be read, sorted."""
    files = sorted(file for file in Path(folder).rglob("*") if file.suffix.lower() in (".jpg", ".png"))
    return [file for file in files if not isinstance(read_photo(str(file), "grey", PhotoLimits()), str)][:count]


def one_by_one(ckpt: str, files: list[Path], name: str) -> tuple[float, list[Result]]:
    """Return seconds and, for each photo, boxes and probabilities, as a plain script finds them."""
    model, finder = load_checkpoint(ckpt), open_detector(name)
    face = model.face
    results = []
    start = time.perf_counter()
    with torch.inference_mode():
        for file in files:
            photo = cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB)
            boxes, crops = [found.box for found in finder(photo)], []
            for box in boxes:
                crops.append(np.atleast_3d(crop_face(photo, box, face)).transpose(2, 0, 1))
            rows = model(torch.from_numpy(np.stack(crops))).softmax(1).tolist() if crops else []
            results.append(list(zip(boxes, rows, strict=True)))
    return time.perf_counter() - start, results


def at_once(ckpt: str, files: list[Path], name: str) -> tuple[float, list[Result]]:
    """Return the same from one Predictor."""
    cv2.setNumThreads(1)
    keep_freed_memory()
    predictor = Predictor.load(ckpt, faces=name, device="cpu")
    start = time.perf_counter()
    found = predictor.batch(files)
    seconds = time.perf_counter() - start
    return seconds, [[(face.box, list(face.probabilities.values())) for face in faces] for faces in found]


def network(ckpt: str) -> float:
    """Return the seconds that a network takes for BATCHES batches of random faces."""
    keep_freed_memory()
    named = open_network(ckpt, "cpu")
    faces = np.random.default_rng(0).integers(0, 256, (FACES, *named.face.shape), np.uint8)
    named(faces)
    start = time.perf_counter()
    for _ in range(BATCHES):
        named(faces)
    return time.perf_counter() - start


def same(one: list[Result], other: list[Result]) -> bool:
    pairs = list(zip(sum(one, []), sum(other, []), strict=True))
    return list(map(len, one)) == list(map(len, other)) and all(
        a[0] == b[0] and np.allclose(a[1], b[1], rtol=0, atol=1e-4) for a, b in pairs
    )


def main() -> None:
    """Draw the photos, run the programs in turn and print rates and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ckpt")
    parser.add_argument("--photos", type=int, default=500)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        draw_sample(Path(folder), photos=options.photos + BROKEN)
        files = photos(folder, options.photos)
        for name in ("whole", "haar"):
            given = (options.ckpt, folder, str(options.photos), name)
            best = measure.take_turns(__file__, {"serial": given, "ours": given})
            results = one_by_one(options.ckpt, files, name)[1]
            if len(files) != options.photos or not same(results, at_once(options.ckpt, files, name)[1]):
                sys.exit("the two programs disagree")
            rates = ", ".join(f"{program} {len(files) / result['seconds']:,.0f}" for program, result in best.items())
            print(f"faces={name}: photos/s {rates}; the same {sum(map(len, results)):,} faces in {len(files):,} photos")
            ratio = best["serial"]["seconds"] / best["ours"]["seconds"]
            print(f"faces={name}: ratio {ratio:.2f} (target: at least 2 on 2 cores)")
        exported = export_onnx(options.ckpt, Path(folder, "model.onnx"))
        best = measure.take_turns(__file__, {"torch": (options.ckpt,), "onnx": (exported,)})
    rates = ", ".join(f"{name} {BATCHES * FACES / result['seconds']:,.0f}" for name, result in best.items())
    print(f"faces/s in batches of {FACES}: {rates}")
    print(f"ratio {best['torch']['seconds'] / best['onnx']['seconds']:.2f} of onnxruntime to torch on CPU")


if __name__ == "__main__":
    measure.serve(
        {
            "serial": lambda ckpt, folder, count, name: one_by_one(ckpt, photos(folder, int(count)), name)[0],
            "ours": lambda ckpt, folder, count, name: at_once(ckpt, photos(folder, int(count)), name)[0],
            "torch": network,
            "onnx": network,
        }
    )
    main()
