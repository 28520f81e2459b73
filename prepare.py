"""Turn raw data into a prepared file: ``python prepare.py --help``."""

from pathlib import Path

from omegaconf import DictConfig

from fer.config import Prepare, check_data, check_keys
from fer.data.prepare import describe, prepare
from fer.launch import main

ENDINGS = {"h5": ".h5", "csv": ".csv", "folder": ""}


def job(cfg: DictConfig, _: Path) -> None:
    data, keys = check_data(cfg.data), check_keys(cfg, Prepare)
    out = Path(keys["out"] or data["file"])
    if not keys["out"]:
        out = out.with_suffix(ENDINGS.get(keys["format"], ".h5"))
    print(describe(prepare(data, out, keys["format"], keys["workers"])))


if __name__ == "__main__":
    main(job, "prepare")
