"""Write a checkpoint as a weight file, or for other programs as ONNX or torch.export: ``python export.py --help``."""

from fer.cli.export import main

if __name__ == "__main__":
    main()
