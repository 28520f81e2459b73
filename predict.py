"""Name the expressions in photos: ``python predict.py --help``."""

import sys
from pathlib import Path

from omegaconf import DictConfig

from fer.config import check_darknet, check_keys
from fer.errors import InputError
from fer.launch import main
from fer.schemas import Predict


def job(cfg: DictConfig, _: Path) -> None:
    keys = check_keys(cfg, Predict)
    for key in ("source", "ckpt"):
        if not keys[key]:
            raise InputError(f"{key} is not set: give source=PHOTO_OR_FOLDER and ckpt=FILE.weights")
    if not keys["ckpt"].endswith(".weights"):
        raise InputError(f"ckpt={keys['ckpt']}: predict.py takes the .weights file of a Darknet net")
    from fer.darknet.predict import predict

    if predict(keys, check_darknet(cfg.darknet)):
        # some photo could not be read; the csv says which and why
        sys.exit(1)


if __name__ == "__main__":
    main(job, "predict")
