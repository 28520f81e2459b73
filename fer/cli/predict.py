"""Find faces and name their expressions: ``python predict.py --help``."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from fer import api
from fer.cli.launch import launch
from fer.config.checks import check_predict
from fer.darknet.config import check_darknet
from fer.engines import is_darknet


def job(cfg: DictConfig, _: Path) -> None:
    keys, faces = check_predict(cfg)
    # of a file that can't be read OpenCV and FFmpeg print lines of their own; its row says why
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    darknet = check_darknet(cfg.darknet) if is_darknet(keys["ckpt"]) else None
    if api.predict(keys, faces, darknet):
        # the csv says which and why
        sys.exit(1)


def main(words: Sequence[str] = ()) -> None:
    """Run the command line; ``words`` are those before its keys (see `launch`)."""
    launch(job, "predict", words)
