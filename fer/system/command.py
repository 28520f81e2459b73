"""How this program was started, so that what it says to type next works where it is typed."""

import sys
from pathlib import Path

#: The commands, and what each one does in a line of `fer --help`.
COMMANDS = {
    "prepare": "raw data of any layout to one prepared file",
    "train": "train a classifier, or a Darknet net",
    "evaluate": "score a checkpoint, or compare reports",
    "predict": "name the expressions in photos, videos and cameras",
    "export": "a checkpoint for other programs: ONNX, int8, torch.export, safetensors",
    "compare": "a table of training runs",
    "look": "what is in a prepared file, as a page",
    "demo": "try a checkpoint in the browser",
}


def command(name: str) -> str:
    """Return how to type one of `COMMANDS`: ``fer NAME``, or ``python NAME.py`` where such a script was started."""
    started = Path(sys.argv[0])
    if started.suffix == ".py" and started.stem in COMMANDS and name not in ("compare", "demo"):
        return f"python {name}.py"
    return f"fer {name}"
