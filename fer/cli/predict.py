"""Find faces and name their expressions: ``python predict.py --help``."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from fer import api
from fer.cli.arguments import require_effect
from fer.cli.launch import launch
from fer.config.checks import check_predict
from fer.darknet.config import check_darknet
from fer.engines import is_darknet


def job(cfg: DictConfig, _: Path) -> None:
    keys, faces = check_predict(cfg)
    if not is_darknet(keys["ckpt"]):
        require_effect("ckpt=, which is no .weights file", "darknet")
    # of a file that can't be read and a camera that is not there OpenCV prints lines of its own
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    darknet = check_darknet(cfg.darknet) if is_darknet(keys["ckpt"]) else None
    if api.predict(keys, faces, darknet):
        # the csv says which and why
        sys.exit(1)


def main(words: Sequence[str] = ()) -> None:
    """Run the command line; ``words`` are those before its keys (see `launch`). ``--strict`` is ``strict=true``."""
    sys.argv = [sys.argv[0], *("strict=true" if word == "--strict" else word for word in sys.argv[1:])]
    launch(job, "predict", words)
