"""Reading checkpoints: plain data and tensors only, never code."""

import pickle
import warnings
from pathlib import Path

import torch

from fer.classifier import EmotionClassifier
from fer.errors import InputError


def load_checkpoint(path: str | Path) -> EmotionClassifier:
    """Return the classifier of a checkpoint, on the CPU, in evaluation mode.

    Raises:
        InputError: no such file, or not a checkpoint of this project.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint")
    try:
        with warnings.catch_warnings():
            # about foreign pickles, which are refused below
            warnings.simplefilter("ignore")
            # weights_only refuses every pickled object that is not plain data
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise InputError(f"{path}: not a readable checkpoint of this project") from error
    if not isinstance(content, dict) or not {"hyper_parameters", "state_dict", "identities"} <= content.keys():
        raise InputError(f"{path}: not a checkpoint of this project")
    model = EmotionClassifier(**content["hyper_parameters"], download=False)
    model.load_state_dict(content["state_dict"])
    model.identities = content["identities"]
    return model.eval()
