"""Show what is in a prepared file or a YOLO data set: ``python look.py --help``."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from fer.cli.launch import launch
from fer.config.checks import check_data, check_keys, check_seed
from fer.config.schemas import Look
from fer.errors import InputError


def job(cfg: DictConfig, _: Path) -> None:
    keys = check_keys(cfg, Look)
    check_seed(keys["seed"])
    data = check_data(cfg.data) if "data" in cfg else None
    if bool(data) == bool(keys["file"]):
        raise InputError("give data=NAME, whose prepared file is shown, or file=FILE.h5, one of them")
    if data and data["name"] == "yolo" and data["raw"]:
        from fer.data.preparation.sources import photo_limits
        from fer.data.readers.yolo.dataset import yolo_of
        from fer.inspection.yolo_page import write_yolo_page

        out = keys["out"] or Path(data["file"]).with_name("yolo-look")
        print(f"wrote {write_yolo_page(yolo_of(data), out, photo_limits(data), keys['seed'])}")
        return
    if data and not Path(data["file"]).is_file():
        from fer.data.preparation.summary import command_for

        raise InputError(f"{data['file']}: no such file; make it with `{command_for(data)}`")
    # pandas and matplotlib take a second to import, which --help and a misspelt key should not wait for
    from fer.inspection.page import write_page

    print(f"wrote {write_page(data['file'] if data else keys['file'], keys['out'], keys['seed'])}")


def main(words: Sequence[str] = ()) -> None:
    """Run the command line; ``words`` are those before its keys (see `launch`)."""
    launch(job, "look", words)
