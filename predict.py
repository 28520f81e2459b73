"""Find faces and name their expressions: ``python predict.py --help``."""

from fer.cli.predict import main

if __name__ == "__main__":
    main()
