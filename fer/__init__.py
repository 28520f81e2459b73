"""Facial-expression recognition: from raw AffectNet / FER2013 files to a trained, measured model.

The names below are the public interface; they are imported when they are first used, so that this costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fer.api import Predictor
    from fer.data.loading.datamodule import FaceDataModule
    from fer.errors import InputError
    from fer.labels import CLASSES
    from fer.models.checkpoint import load_checkpoint
    from fer.models.classifier import EmotionClassifier
    from fer.prediction.face import Face
    from fer.prediction.result import Result

    __version__: str

__all__ = [
    "CLASSES", "EmotionClassifier", "Face", "FaceDataModule", "InputError", "Predictor", "Result",
    "__version__", "load_checkpoint",
]  # fmt: skip

_MODULES = {
    "CLASSES": "fer.labels",
    "EmotionClassifier": "fer.models.classifier",
    "Face": "fer.prediction.face",
    "FaceDataModule": "fer.data.loading.datamodule",
    "InputError": "fer.errors",
    "Predictor": "fer.api",
    "Result": "fer.prediction.result",
    "load_checkpoint": "fer.models.checkpoint",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        # pyproject.toml has it
        value: Any = importlib.import_module("importlib.metadata").version("fer-lightning")
    elif name in _MODULES:
        value = getattr(importlib.import_module(_MODULES[name]), name)
    else:
        raise AttributeError(f"module 'fer' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
