"""``python -m fer`` is the command ``fer``."""

from fer.cli.main import main

if __name__ == "__main__":
    main()
