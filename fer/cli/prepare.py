"""Turn raw data into a prepared file: ``python prepare.py --help``."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from fer.cli.launch import launch
from fer.config.checks import check_data, check_keys
from fer.config.schemas import Prepare
from fer.darknet.formats.export import export
from fer.darknet.formats.photo_folder import darknet_folder
from fer.data.preparation.prepare import DARKNET_FORMATS, prepare
from fer.data.preparation.summary import describe
from fer.data.storage.verify import verify
from fer.errors import InputError
from fer.system.files import claiming

ENDINGS = {"h5": ".h5", "litdata": ".litdata", "csv": ".csv", "folder": ""}


def job(cfg: DictConfig, _: Path) -> None:
    data, keys = check_data(cfg.data), check_keys(cfg, Prepare)
    if keys["verify"]:
        print(verify(keys["verify"], data["shards"]))
        return
    on = keys["prepare"]["backend"]
    if keys["format"] in DARKNET_FORMATS:
        if on != "local":
            raise InputError(f"prepare.backend={on}: format={keys['format']} is written by this machine alone")
        task, crop = keys["format"].removeprefix("darknet_"), keys["crop"]
        out = Path(keys["out"] or darknet_folder(data, task, crop))
        with claiming(out):
            print(describe(export(data, out, task, crop, keys["link"], keys["workers"])))
        return
    out = Path(keys["out"] or data["file"])
    if not keys["out"]:
        out = out.with_suffix(ENDINGS.get(keys["format"], ".h5"))
    address = keys["prepare"]["address"]
    with claiming(out):
        print(describe(prepare(data, out, keys["format"], keys["workers"], on, address, keys["shards"])))


def main(words: Sequence[str] = ()) -> None:
    """Run the command line; ``words`` are those before its keys (see `launch`)."""
    launch(job, "prepare", words)
