"""Train a classifier of facial expressions, or a Darknet net: ``python train.py --help``."""

from fer.cli.train import main

if __name__ == "__main__":
    main()
