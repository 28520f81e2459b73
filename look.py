"""Show what is in a prepared file: ``python look.py --help``."""

from fer.__main__ import start

if __name__ == "__main__":
    start("look")
