"""Pictures without faces, for scenes to stand on: photos that kept packages ship or a user's own, and drawn ones."""

from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np

from fer.data.photos import read_photo
from fer.data.source import PhotoLimits
from fer.errors import InputError

# None with people in it: not astronaut, camera, lfw_subset, nor coins, which has heads.
_SHIPPED = {
    "skimage.data": (
        "brick.png", "cell.png", "chelsea.png", "chessboard_RGB.png", "clock_motion.png", "coffee.png", "color.png",
        "grass.png", "gravel.png", "horse.png", "hubble_deep_field.jpg", "ihc.png", "logo.png", "microaneurysms.png",
        "moon.png", "motorcycle_left.png", "phantom.png", "retina.jpg", "rocket.jpg", "text.png",
    ),
    "sklearn.datasets.images": ("china.jpg", "flower.jpg"),
}  # fmt: skip
_LONGEST = 640
#: One in so many is kept from training, for val and test.
_HELD = 4


def read_backgrounds(folder: Path | None = None) -> dict[bool, list[np.ndarray]]:
    """Return pictures uint8 (h, w, 3) BGR, of at most 640 pixels a side, of a folder or of kept packages.

    Under True are those for training, under False those of other scenes, one in four by name.

    Raises:
        InputError: a package is missing, or the folder has fewer than two pictures or one that cannot be read.
    """
    paths = _in(folder) if folder else _shipped()
    pictures = [_read(path) for path in sorted(paths, key=lambda path: path.name)]
    return {
        training: [picture for i, picture in enumerate(pictures) if (i % _HELD > 0) == training]
        for training in (True, False)
    }


def _in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"data.backgrounds={folder}: no such folder of pictures without faces")
    paths = [path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")]
    if len(paths) < 2:
        raise InputError(f"data.backgrounds={folder}: has {len(paths)} pictures; give two or more without faces")
    return paths


def _shipped() -> list[Path]:
    paths = []
    for module, names in _SHIPPED.items():
        try:
            folder = Path(str(files(module)))
        except ModuleNotFoundError as error:
            raise InputError(
                f"data=scenes takes backgrounds from {module.split('.')[0]}: pip install '.[scenes]', or give "
                "data.backgrounds=FOLDER of pictures without faces"
            ) from error
        # one that a later release lacks would change every scene
        paths += [folder / name for name in names]
    return paths


def _read(path: Path) -> np.ndarray:
    picture = read_photo(str(path), "rgb", PhotoLimits())
    if isinstance(picture, str):
        raise InputError(f"{path}: {picture}; data.backgrounds= gives a folder of other pictures without faces")
    shrink = min(1.0, _LONGEST / max(picture.shape[:2]))
    size = [max(8, round(side * shrink)) for side in picture.shape[1::-1]]
    return cv2.cvtColor(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), cv2.COLOR_RGB2BGR)


def draw_background(pictures: list[np.ndarray], width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """Return a background uint8 (height, width, 3) BGR: a part of a picture, or drawn; one in four has another set in."""
    scene = _one(pictures, width, height, rng)
    if rng.random() < 0.25:
        other = _one(pictures, width, height, rng)
        if rng.random() < 0.5:
            scene[:, int(rng.integers(width)) :] = other[:, : int(rng.integers(1, width))].mean((0, 1))
        else:
            (x0, x1), (y0, y1) = (sorted(rng.integers(0, side, 2).tolist()) for side in (width, height))
            scene[y0:y1, x0:x1] = other[y0:y1, x0:x1]
    return scene


def _one(pictures: list[np.ndarray], width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    if rng.random() < 0.55:
        return part_of(pictures, width, height, rng)
    scene = _clouds(width, height, rng)
    if rng.random() < 0.6:
        _shapes(scene, rng)
    return cv2.GaussianBlur(scene, (0, 0), rng.uniform(0.3, 4)) if rng.random() < 0.6 else scene


def part_of(pictures: list[np.ndarray], width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """Return a part of a picture, of any place and scale, mirrored or turned, its colours changed."""
    picture = pictures[rng.integers(len(pictures))]
    if rng.random() < 0.2:
        picture = cv2.rotate(picture, int(rng.integers(3)))
    h, w = picture.shape[:2]
    across = min(w, h * width / height) * rng.uniform(0.25, 1)
    size = max(4, int(across)), max(4, min(h, int(across * height / width)))
    x, y = int(rng.integers(w - size[0] + 1)), int(rng.integers(h - size[1] + 1))
    part = cv2.resize(picture[y : y + size[1], x : x + size[0]], (width, height), interpolation=cv2.INTER_LINEAR)
    if rng.random() < 0.5:
        part = cv2.flip(part, 1)
    if rng.random() < 0.3:
        part = np.ascontiguousarray(part[..., rng.permutation(3)])
    return part


def _clouds(width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """Return soft noise of one to four sizes, from plain colours to a texture."""
    coarse = rng.uniform(10, 245, (*rng.integers(1, 5, 2), 3)).astype(np.float32)
    scene: np.ndarray = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    for cells in (8, 24, 80)[: int(rng.integers(4))]:
        noise = rng.normal(0, rng.uniform(3, 30), (cells, cells)).astype(np.float32)
        scene += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)[..., None]
    return scene.clip(0, 255).astype(np.uint8)


def _shapes(scene: np.ndarray, rng: np.random.Generator) -> None:
    height, width = scene.shape[:2]
    for _ in range(rng.integers(1, 14)):
        x0, y0, x1, y1 = (rng.uniform(-0.1, 1.1, 4) * (width, height, width, height)).astype(int).tolist()
        colour, thick = rng.uniform(0, 255, 3).tolist(), int(rng.choice([-1, 1, 2, 5]))
        kind = rng.integers(5)
        if kind == 0:
            cv2.rectangle(scene, (x0, y0), (x1, y1), colour, thick)
        elif kind == 1:
            axes = 3 + abs(x1 - x0) // 3, 3 + abs(y1 - y0) // 3
            cv2.ellipse(scene, (x0, y0), axes, float(rng.uniform(0, 180)), 0, 360, colour, thick, cv2.LINE_AA)
        elif kind == 2:
            cv2.line(scene, (x0, y0), (x1, y1), colour, abs(thick) * 2, cv2.LINE_AA)
        elif kind == 3:
            text = "".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz0123456789 "), 8))
            cv2.putText(scene, text, (x0, y0), int(rng.integers(4)), rng.uniform(0.3, 2), colour, abs(thick))
        else:
            step = int(rng.integers(6, 40))
            for at in range(min(x0, x1), max(x0, x1), step):
                cv2.line(scene, (at, y0), (at, y1), colour, max(1, step // 4))
