"""Turn raw data into a prepared file: ``python prepare.py --help``."""

from fer.cli.prepare import main

if __name__ == "__main__":
    main()
