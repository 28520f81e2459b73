"""Train a classifier of facial expressions: ``python train.py --help``."""

from pathlib import Path

from omegaconf import DictConfig

from fer.config import check_train
from fer.launch import main


def job(cfg: DictConfig, out: Path) -> float:
    config = check_train(cfg)
    # torch takes seconds to import, which --help and a misspelt key should not wait for
    from fer.experiment import train

    return train(config, out)["val/acc"]


if __name__ == "__main__":
    main(job, "train")
