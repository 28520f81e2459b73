"""Write a checkpoint as a weight file, or for other programs as ONNX or torch.export: ``python export.py --help``."""

from fer.__main__ import start

if __name__ == "__main__":
    start("export")
