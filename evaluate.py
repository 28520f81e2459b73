"""Score a checkpoint, or compare reports: ``python evaluate.py --help``."""

from fer.__main__ import start

if __name__ == "__main__":
    start("evaluate")
