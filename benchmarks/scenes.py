"""Scenes composed of FER2013's faces, to train and score a detector on: a folder of AffectNet's shape.

    python benchmarks/scenes.py OUT [--file data/fer2013-48-grey.h5] [--train 20000] [--test 2000]
    python prepare.py data=affectnet data.raw=OUT format=darknet_detector out=OUT-detector
    python train.py darknet=v4_tiny darknet.engine=torch darknet.folder=OUT-detector darknet.anchors=kmeans \
        darknet.max_batches=6000 trainer.precision=16-mixed num_workers=12
    python evaluate.py ckpt=runs/NAME/DATE/backup/v4_tiny_final.weights split=test darknet.engine=torch

Each scene of 416 x 416 pixels has one to five faces of 48 to 144 pixels that do not overlap, on soft patches of colour.
Training's faces are in the scenes of training.csv, PublicTest's in those of validation.csv, so a score is of faces, and
of backgrounds, that were not trained on. The pasted squares are easy to find: mAP says how well expressions are named,
and nothing of finding faces in photos. The scenes show real people's faces; they are not for passing on.
"""

import argparse
import csv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from fer.data.storage.hdf5 import read_column, read_info
from fer.data.synthetic.dataset import COLUMNS, PHOTO_FOLDER
from fer.labels import affectnet_to_label

SIDE, SMALLEST, LARGEST, MOST = 416, 48, 144, 5


def compose(faces: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, list[tuple[int, int, int]]]:
    """Return a scene uint8 (h, w, 3) of faces (n, 48, 48), and each one's x, y and side, or fewer where none fits."""
    patches = rng.integers(20, 236, (*rng.integers(3, 9, 2), 3)).astype(np.uint8)
    scene = cv2.resize(patches, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    boxes: list[tuple[int, int, int]] = []
    for face in faces:
        side = int(rng.integers(SMALLEST, LARGEST + 1))
        for _ in range(20):
            x, y = (int(v) for v in rng.integers(0, SIDE - side, 2))
            if all(x + side <= a or a + s <= x or y + side <= b or b + s <= y for a, b, s in boxes):
                break
        else:
            break
        scene[y : y + side, x : x + side] = cv2.resize(face, (side, side), interpolation=cv2.INTER_CUBIC)[..., None]
        boxes.append((x, y, side))
    return scene, boxes


def write(out: Path, name: str, count: int, images: np.ndarray, labels: np.ndarray) -> None:
    """Write ``count`` scenes and their csv; ``labels`` are AffectNet's codes."""
    folder = out / PHOTO_FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)

    def one(index: int) -> list[list[str]]:
        rng = np.random.default_rng((0, name == "training", index))
        picked = rng.choice(len(images), rng.integers(1, MOST + 1), replace=False)
        scene, boxes = compose(images[picked], rng)
        path = f"{name}/{index:06d}.jpg"
        cv2.imwrite(str(out / PHOTO_FOLDER / path), scene, [cv2.IMWRITE_JPEG_QUALITY, 95])
        return [
            [path, str(x), str(y), str(side), str(side), "", str(labels[row]), "0", "0"]
            for row, (x, y, side) in zip(picked, boxes, strict=False)
        ]

    with ThreadPoolExecutor() as pool, (out / f"{name}.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for rows in tqdm(pool.map(one, range(count)), total=count, desc=name, unit="scene"):
            writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--file", default="data/fer2013-48-grey.h5", help="FER2013 as prepare.py wrote it")
    parser.add_argument("--train", type=int, default=20_000)
    parser.add_argument("--test", type=int, default=2_000)
    arguments = parser.parse_args()
    classes = read_info(arguments.file).class_names
    codes = {affectnet_to_label(code, classes): code for code in range(7)}
    for split, name, count in (("train", "training", arguments.train), ("val", "validation", arguments.test)):
        labels = np.array([codes[label] for label in read_column(arguments.file, split, "label").tolist()])
        write(arguments.out, name, count, read_column(arguments.file, split, "image"), labels)


if __name__ == "__main__":
    main()
