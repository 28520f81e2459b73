"""FER2013's faces set into scenes, to train a detector on that names expressions: a YOLO data set that is drawn here.

The scenes show real people's faces; they are not for passing on.
"""

import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fer.data.source import SPLITS
from fer.data.storage.hdf5 import read_column, read_info
from fer.data.synthetic.backgrounds import read_backgrounds
from fer.data.synthetic.composition import compose
from fer.errors import InputError
from fer.system.files import replacing_folder

#: The file that marks a folder as drawn by this module; no other folder is written into.
MARKER = "scenes.json"
#: Raised where the same seed gives other scenes than before.
_VERSION = 1
#: Scenes of val and of test, as a share of those of train.
_OTHERS = 0.1
#: How many scenes have 0, 1, 2 ... faces; the last share is of 7 to 16.
_FACES = (0.12, 0.5, 0.12, 0.08, 0.06, 0.04, 0.03, 0.05)
_MOST = 16
_DECOYS = 4
#: A face of fewer grey levels than this is none.
_FLAT = 24


def draw_scenes(
    folder: Path, faces: Path, photos: int, seed: int = 0, backgrounds: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> None:  # fmt: skip
    """Draw ``photos`` scenes of a prepared file's training faces, and a tenth as many of each other split's.

    A scene is of one split's faces, before backgrounds of training's or the others'. Faces of training whose pixels are
    in another split too are left out, and so are flat ones. The same file, seed, number and backgrounds give the same
    scenes. ``progress`` is called with the number of scenes drawn since. A folder that was drawn so before is left.

    Raises:
        InputError: too few scenes, no faces, no backgrounds, or ``folder`` holds something that was not drawn here.
    """
    if photos < 10:
        raise InputError(f"data.photos={photos}: ask for 10 scenes or more")
    pictures = read_backgrounds(backgrounds)
    info = read_info(faces)
    splits = {split: _read_faces(faces, split) for split in SPLITS if split in info.counts}
    if "train" not in splits or "val" not in splits:
        raise InputError(f"data.faces={faces}: has no train and val faces, of which scenes are made")
    elsewhere = [_digests(images) for split, (images, _) in splits.items() if split != "train"]
    splits["train"] = _without(*splits["train"], np.concatenate(elsewhere))
    if empty := [split for split, (images, _) in splits.items() if not len(images)]:
        raise InputError(f"data.faces={faces}: no usable face is left in {empty[0]}")
    facts = {
        "version": _VERSION, "seed": seed, "photos": photos, "faces": {s: len(each[0]) for s, each in splits.items()},
        "pixels": _digest(*(part for s in splits.values() for part in s), *pictures[True], *pictures[False]),
    }  # fmt: skip
    if _is_drawn(folder, facts):
        return
    with replacing_folder(folder, _require_ours) as new, ThreadPoolExecutor(os.cpu_count()) as pool:
        listed: dict[str, list[str]] = {}
        for number, (split, (images, labels)) in enumerate(splits.items()):
            count = photos if split == "train" else max(1, round(photos * _OTHERS))
            odds = _odds(labels, len(info.class_names))

            def draw(
                index: int, number: int = number, split: str = split, images: np.ndarray = images,
                labels: np.ndarray = labels, odds: np.ndarray = odds,
            ) -> str:  # fmt: skip
                rng = np.random.default_rng((seed, number, index))
                return _draw_one(new, f"{split}/{index // 1000:03d}/{index:06d}", images, labels, odds,
                                 pictures[split == "train"], rng)  # fmt: skip

            listed[split] = []
            for name in pool.map(draw, range(count)):
                listed[split].append(name)
                if progress is not None:
                    progress(1)
        _write_lists(new, info.class_names, listed)
        (new / MARKER).write_text(json.dumps(facts) + "\n")


def count_scenes(faces: Path, photos: int) -> int:
    """Return how many scenes `draw_scenes` draws in all."""
    others = len(read_info(faces).counts) - 1
    return photos + others * max(1, round(photos * _OTHERS))


def _read_faces(path: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    images, labels = read_column(path, split, "image"), read_column(path, split, "label")
    if images.ndim == 4:
        images = np.ascontiguousarray(images[..., ::-1])  # OpenCV's order
    pixels = images.reshape(len(images), -1)
    usable = pixels.max(1).astype(int) - pixels.min(1) >= _FLAT
    return images[usable], labels[usable]


def _digests(images: np.ndarray) -> np.ndarray:
    return np.array([hashlib.blake2b(image.tobytes(), digest_size=16).hexdigest() for image in images], "U32")


def _without(images: np.ndarray, labels: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the faces whose pixels are not among others'."""
    own = ~np.isin(_digests(images), others)
    return images[own], labels[own]


def _digest(*arrays: np.ndarray) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _is_drawn(folder: Path, facts: dict[str, Any]) -> bool:
    try:
        return json.loads((folder / MARKER).read_text()) == facts
    except (OSError, ValueError):
        return False


def _require_ours(folder: Path) -> None:
    if folder.is_dir() and any(folder.iterdir()) and not (folder / MARKER).is_file() or folder.is_file():
        raise InputError(
            f"{folder}: holds something that is no scenes drawn here: give data.raw= an empty or new folder"
        )


def _odds(labels: np.ndarray, classes: int) -> np.ndarray:
    """Return the chance of each face (n,): a class is drawn by the root of its number, so that rare ones are seen."""
    counts = np.bincount(labels, minlength=classes)
    odds = 1 / np.sqrt(counts[labels])
    return odds.cumsum() / odds.sum()


def _draw_one(
    root: Path, name: str, images: np.ndarray, labels: np.ndarray, odds: np.ndarray, pictures: list[np.ndarray],
    rng: np.random.Generator,
) -> str:  # fmt: skip
    """Draw a scene and its label file; returns its path below the root."""

    def draw(count: int) -> np.ndarray:
        return np.searchsorted(odds, rng.random(count) * odds[-1]).clip(0, len(images) - 1)

    count = int(rng.choice(len(_FACES), p=_FACES))
    picked = draw(int(rng.integers(count, _MOST + 1)) if count == len(_FACES) - 1 else count)
    mirrored = rng.random(len(picked)) < 0.5
    faces = [images[i][:, ::-1] if mirror else images[i] for i, mirror in zip(picked, mirrored, strict=True)]
    decoys = [images[i] for i in draw(int(rng.integers(_DECOYS + 1)))]
    scene, boxes = compose(faces, decoys, pictures, rng)
    height, width = scene.shape[:2]
    path = root / f"{name}.jpg"
    path.parent.mkdir(parents=True, exist_ok=True)
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 96))]
    # not imwrite, which does not tell of a full disk
    path.write_bytes(cv2.imencode(".jpg", scene, quality)[1].tobytes())
    lines = [
        f"{labels[i]} {(x + w / 2) / width:.6f} {(y + h / 2) / height:.6f} {w / width:.6f} {h / height:.6f}\n"
        for i, (x, y, w, h) in zip(picked, boxes, strict=False)
    ]
    path.with_suffix(".txt").write_text("".join(lines))
    return f"{name}.jpg"


def _write_lists(folder: Path, class_names: tuple[str, ...], listed: dict[str, list[str]]) -> None:
    (folder / "obj.names").write_text("".join(f"{name}\n" for name in class_names))
    keys = {"train": "train", "val": "valid", "test": "test"}
    lines = [f"classes = {len(class_names)}", "names = obj.names"]
    for split, names in listed.items():
        (folder / f"{split}.txt").write_text("".join(f"{name}\n" for name in names))
        lines.append(f"{keys[split]} = {split}.txt")
    (folder / "obj.data").write_text("\n".join(lines) + "\n")
