"""Show what is in a prepared file: ``python look.py --help``."""

from fer.cli.look import main

if __name__ == "__main__":
    main()
