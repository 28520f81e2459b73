"""Train a classifier of facial expressions, or a Darknet net: ``python train.py --help``."""

from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from fer.cli.launch import launch
from fer.config.train import check_train
from fer.darknet.config import check_darknet_train


def job(cfg: DictConfig, out: Path) -> float:
    # torch takes seconds to import, which --help and a misspelt key should not wait for
    if cfg.darknet.name != "none":
        config = check_darknet_train(cfg, list(HydraConfig.get().overrides.task))
        if config["darknet"]["engine"] == "torch":
            from fer.darknet.torch_engine.training.run import train as train_darknet
        else:
            from fer.darknet.program_engine.training import train as train_darknet

        return train_darknet(config, out)
    config = check_train(cfg)
    from fer.training.run import train

    return train(config, out)["val/acc"]


def main(words: Sequence[str] = ()) -> None:
    """Run the command line; ``words`` are those before its keys (see `launch`)."""
    launch(job, "train", words)
