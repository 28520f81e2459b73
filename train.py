"""Train a classifier of facial expressions, or a Darknet net: ``python train.py --help``."""

from fer.__main__ import start

if __name__ == "__main__":
    start("train")
