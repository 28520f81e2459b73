"""Score a checkpoint, or compare reports: ``python evaluate.py --help``."""

from fer.cli.evaluate import main

if __name__ == "__main__":
    main()
