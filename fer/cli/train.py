"""Train a classifier of facial expressions, or a Darknet net: ``python train.py --help``."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from fer import api
from fer.cli.errors import ends_quietly
from fer.cli.launch import launch
from fer.cli.run_folder import recorded
from fer.cli.sweep import print_table
from fer.config.plain import plain
from fer.config.train import check_train
from fer.darknet.config import check_darknet_train
from fer.system.distributed import is_first_rank, local_rank
from fer.system.files import claiming


def job(cfg: DictConfig, out: Path) -> float:
    remedy = "wait for it to end, or give another hydra.run.dir=FOLDER"
    # each machine has the config that it ran with
    with claiming(out, remedy) if is_first_rank() else nullcontext():
        with nullcontext() if local_rank() else recorded(cfg, out):
            return _train(cfg, out)


def _train(cfg: DictConfig, out: Path) -> float:
    if plain(cfg.darknet, "darknet").get("name") != "none":
        return api.train(check_darknet_train(cfg, list(HydraConfig.get().overrides.task)), out)
    return api.train(check_train(cfg), out)


@ends_quietly
def main(words: Sequence[str] = ()) -> None:
    """Run the command line; ``words`` are those before its keys (see `launch`)."""
    try:
        launch(job, "train", words)
    finally:
        # also of a sweep that a job has ended
        print_table()
