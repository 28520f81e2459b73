"""Train a classifier of facial expressions, or a Darknet net: ``python train.py --help``."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import cast

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from fer import api
from fer.cli.launch import launch
from fer.config.plain import plain
from fer.config.train import check_train
from fer.darknet.config import check_darknet_train
from fer.system.distributed import is_first_rank
from fer.system.files import claiming, write_files


def job(cfg: DictConfig, out: Path) -> float:
    if not is_first_rank():
        return _train(cfg, out)
    with claiming(out, "wait for it to end, or give another hydra.run.dir=FOLDER"):
        _save_config(cfg, out / ".hydra")
        return _train(cfg, out)


def _save_config(cfg: DictConfig, folder: Path) -> None:
    """Write what Hydra writes of a job, which does so before the run folder is known to be this process's."""
    hydra = cast(DictConfig, HydraConfig.instance().cfg)
    given = list(HydraConfig.get().overrides.task)
    texts = {"hydra.yaml": OmegaConf.to_yaml(hydra), "overrides.yaml": OmegaConf.to_yaml(given)}
    texts["config.yaml"] = OmegaConf.to_yaml(cfg)
    write_files(folder, {name: partial(Path.write_text, data=text, encoding="utf-8") for name, text in texts.items()})


def _train(cfg: DictConfig, out: Path) -> float:
    if plain(cfg.darknet, "darknet").get("name") != "none":
        return api.train(check_darknet_train(cfg, list(HydraConfig.get().overrides.task)), out)
    return api.train(check_train(cfg), out)


def main(words: Sequence[str] = ()) -> None:
    """Run the command line; ``words`` are those before its keys (see `launch`)."""
    launch(job, "train", words)
