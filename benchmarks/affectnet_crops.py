"""AffectNet photos to 48x48 grey faces: prepare.py's work on all cores against a plain serial read-crop-resize loop.

    python benchmarks/affectnet_crops.py [--photos 5000]

Draws JPEG photos of about 425x425 with a training.csv of AffectNet's columns (landmarks of 1 kB included) into a
temporary folder. Each program runs in its own process, in turn; the clock starts after the imports, so reading the csv
and starting threads count. The loop keeps its faces in a list; ours is the whole of ``prepare``, which also keeps
landmarks, hashes every face and writes a file. Both must give the same faces, byte for byte. Target: at least 1.7 times
faster on 2 cores, and memory that does not grow with the number of photos (a fifth of them is measured beside it).
"""

import argparse
import csv
import json
import sys
import tempfile
from pathlib import Path

import cv2
import measure
import numpy as np

from fer.data.preparation.prepare import prepare
from fer.data.storage.hdf5 import read_column

BOX_SHARE = 0.77  # of the photo's side, as in AffectNet


def serial(root: str) -> list[np.ndarray]:
    """Do what a plain script does: one photo after another, all faces in a list."""
    faces = []
    with open(Path(root, "training.csv"), newline="") as stream:
        for row in csv.DictReader(stream):
            x, y, width, height = (int(row[name]) for name in ("face_x", "face_y", "face_width", "face_height"))
            image = cv2.imread(f"{root}/Manually_Annotated_Images/{row['subDirectory_filePath']}", cv2.IMREAD_GRAYSCALE)
            faces.append(cv2.resize(image[y : y + height, x : x + width], (48, 48), interpolation=cv2.INTER_AREA))
    return faces


def ours(data: str, out: str) -> None:
    """Do what prepare.py does with the data config, given as JSON."""
    prepare(json.loads(data), Path(out))


def draw_photos(root: Path, count: int, seed: int = 0) -> None:
    """Write photos of 405 to 445 pixels a side, smooth shapes with sensor-like noise, and their training.csv."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 6, (900, 900, 3)).astype(np.float32)
    lines = ["subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"]
    for index in range(count):
        side = int(rng.integers(405, 446))
        coarse = rng.normal(128, 60, (24, 24, 3)).astype(np.float32)
        dx, dy = rng.integers(0, 900 - side, 2)
        image = cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC) + noise[dy : dy + side, dx : dx + side]
        path = f"{index % 50}/{index}.jpg"
        file = root / "Manually_Annotated_Images" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(file), np.clip(image, 0, 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, 90])
        size = round(side * BOX_SHARE)
        start = (side - size) // 2
        landmarks = ";".join(f"{value:.2f}" for value in rng.uniform(start, start + size, 136))
        lines.append(f"{path},{start},{start},{size},{size},{landmarks},{rng.integers(7)},0.1,-0.2")
    (root / "training.csv").write_text("\n".join(lines) + "\n")


def main() -> None:
    """Draw the photos, run both programs in turn and print rates, memory and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=5000)
    count = parser.parse_args().photos
    with tempfile.TemporaryDirectory() as folder:
        root, fifth, out = Path(folder, "all"), Path(folder, "fifth"), Path(folder, "out.h5")
        draw_photos(root, count)
        draw_photos(fifth, count // 5)
        few = measure.run(__file__, "ours", json.dumps(measure.data_config("affectnet", fifth)), out)
        config = json.dumps(measure.data_config("affectnet", root))
        best = measure.take_turns(__file__, {"serial": (root,), "ours": (config, out)})
        faces = np.stack(serial(str(root)))
        if len(faces) != count or not np.array_equal(read_column(out, "train", "image"), faces):
            sys.exit("the two programs disagree")
    rates = ", ".join(f"{name} {count / result['seconds']:,.0f}" for name, result in best.items())
    print(f"photos/s: {rates}; the same {count:,} faces byte for byte")
    peak, peak_few = best["ours"]["gib"] * 1024, few["gib"] * 1024
    print(f"peak memory of ours {peak:.0f} MiB for all, {peak_few:.0f} MiB for a fifth of them (target: flat)")
    print(f"ratio {best['serial']['seconds'] / best['ours']['seconds']:.2f} (target: at least 1.7 on 2 cores)")


if __name__ == "__main__":
    measure.serve({"serial": serial, "ours": ours})
    main()
