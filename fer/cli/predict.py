"""Find faces and name their expressions: ``python predict.py --help``."""

import os
import sys
from pathlib import Path

from omegaconf import DictConfig

from fer.cli.launch import launch
from fer.config.checks import check_predict
from fer.darknet.config import check_darknet


def job(cfg: DictConfig, _: Path) -> None:
    keys, faces = check_predict(cfg)
    # of a file that can't be read OpenCV and FFmpeg print lines of their own; its row says why
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    # OpenCV and torch take a while to import, which --help and a misspelt key should not wait for
    darknet = check_darknet(cfg.darknet) if keys["ckpt"].endswith(".weights") else None
    if darknet and darknet["engine"] == "binary":
        from fer.darknet.program_engine.predict import predict as predict_darknet

        failed = predict_darknet(keys, darknet)
    else:
        from fer.prediction.run import predict

        failed = predict(keys, faces, darknet)
    if failed:
        # the csv says which and why
        sys.exit(1)


def main() -> None:
    launch(job, "predict")
