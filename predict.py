"""Find faces and name their expressions: ``python predict.py --help``."""

from fer.__main__ import start

if __name__ == "__main__":
    start("predict")
