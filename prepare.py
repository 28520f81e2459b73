"""Turn raw data into a prepared file: ``python prepare.py --help``."""

from fer.__main__ import start

if __name__ == "__main__":
    start("prepare")
