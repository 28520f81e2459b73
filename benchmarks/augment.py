"""Our augmentation beside what kornia and torchvision do of the same: a batch of 64 grey 48 x 48 faces, one CPU thread.

    python benchmarks/augment.py

The best of seven turns, each of which times all ways in turn. torchvision's transforms are called for each face.
"""

import time

import torch

from fer.training.augment import Augmentation

OURS, KORNIA, TORCHVISION = "fer.training.augment.Augment", "kornia.augmentation.", "torchvision.transforms.v2."
PLACE = {"degrees": 12.0, "translate": [0.08, 0.08], "scale": [0.88, 1.12]}


def chain(package: str, **transforms: dict) -> dict:
    parts = [{"_target_": package + name} | arguments for name, arguments in transforms.items()]
    return {"_target_": "fer.training.augment.Chain", "crop": 44, "transforms": parts}


WAYS = {
    "seed, ours": {"_target_": OURS, "crop": 44},
    "seed, kornia": chain(KORNIA, RandomCrop={"size": [44, 44]}, RandomHorizontalFlip={}),
    "seed, torchvision": chain(TORCHVISION, RandomCrop={"size": 44}, RandomHorizontalFlip={}),
    "strong, ours": {
        "_target_": OURS, "crop": 44, "rotate": 12, "scale": 0.12, "translate": 0.08, "brightness": 0.25,
        "contrast": 0.25, "erase": 0.25,
    },
    "strong, kornia": chain(
        KORNIA, RandomAffine=PLACE | {"p": 1.0}, CenterCrop={"size": 44}, RandomHorizontalFlip={},
        RandomBrightness={"brightness": [0.75, 1.25], "p": 1.0}, RandomContrast={"contrast": [0.75, 1.25], "p": 1.0},
        RandomErasing={"p": 0.25},
    ),
    "strong, torchvision": chain(
        TORCHVISION, RandomAffine=PLACE | {"interpolation": 2}, CenterCrop={"size": 44}, RandomHorizontalFlip={},
        ColorJitter={"brightness": 0.25, "contrast": 0.25}, RandomErasing={"p": 0.25},
    ),
}  # fmt: skip


def main() -> None:
    torch.set_num_threads(1)
    faces = torch.randint(256, (64, 1, 48, 48)).byte()
    augmentations = {name: Augmentation(config, 44) for name, config in WAYS.items()}
    best = dict.fromkeys(WAYS, float("inf"))
    for _ in range(7):
        for name, augmentation in augmentations.items():
            augmentation(faces)
            start = time.perf_counter()
            for _ in range(20):
                augmentation(faces)
            best[name] = min(best[name], (time.perf_counter() - start) / 20)
    for name, seconds in best.items():
        print(f"{name:20} {1000 * seconds:6.2f} ms a batch")


if __name__ == "__main__":
    main()
