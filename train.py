"""Train a classifier of facial expressions, or a Darknet net: ``python train.py --help``."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from fer.config import check_train
from fer.darknet.config import check_darknet_train
from fer.launch import main


def job(cfg: DictConfig, out: Path) -> float:
    # torch takes seconds to import, which --help and a misspelt key should not wait for
    if cfg.darknet.name != "none":
        config = check_darknet_train(cfg, list(HydraConfig.get().overrides.task))
        if config["darknet"]["engine"] == "torch":
            from fer.darknet.native_training import train as train_darknet
        else:
            from fer.darknet.training import train as train_darknet

        return train_darknet(config, out)
    config = check_train(cfg)
    from fer.experiment import train

    return train(config, out)["val/acc"]


if __name__ == "__main__":
    main(job, "train")
