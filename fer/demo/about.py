"""What the page of `fer.demo` says of its network: its name, and how often it is right, as its own file has it."""

import re
from pathlib import Path
from typing import Any

from fer.engines import resolve, suffix_of
from fer.errors import InputError
from fer.models.pretrained import FOLDER, locate

_UNKNOWN = "its file does not say how often it is right; `fer evaluate` measures it"


def introduce(ckpt: str, network: str, tta: bool) -> str:
    """Return a line of Markdown: file and architecture of a network, and its accuracy."""
    name = Path(ckpt).name
    return f"Network: **{_plain(name)}** ({_plain(network)}), {accuracy(ckpt, tta)}."


def accuracy(ckpt: str, tta: bool) -> str:
    """Return how often a network is right: of a shipped one as its model card says, of a .ckpt as the run noted."""
    ckpt = resolve(ckpt)
    try:
        path = locate(ckpt)
    except InputError:
        # a net of Darknet's
        return _UNKNOWN
    if path.parent == FOLDER:
        return _of_card(path.with_suffix(".md").read_text(encoding="utf-8"), tta) or _UNKNOWN
    return _of_run(path) if suffix_of(path) == ".ckpt" else _UNKNOWN


def _of_card(card: str, tta: bool) -> str | None:
    """Return what the first row of a card's table `split | faces | centre crop | ten crops` says."""
    rows = re.finditer(r"^\| (\w+) \| ([\d,]+) \| ([\d.]+) \[([^]]+)\] \| ([\d.]+) \[([^]]+)\] \|$", card, re.MULTILINE)
    title = re.match(r"# (\w+?)_", card)
    for row in rows:
        split, faces, *cells = row.groups()
        share, interval = cells[2:] if tta else cells[:2]
        data = f"{title[1].upper()}'s " if title else ""
        low, _, high = interval.partition(", ")
        crops = "ten crops" if tta else "centre crop"
        return f"right on {share} % of {data}{split} ({faces} faces, {crops}; 95 % interval {low} to {high})"
    return None


def _of_run(path: Path) -> str:
    """Return the accuracy on val that the checkpoint's callbacks have noted."""
    from fer.models.checkpoint import read_checkpoint

    content: dict[str, Any] = read_checkpoint(path)
    callbacks, data = content.get("callbacks"), content["hyper_parameters"].get("data")
    named = f" of {_plain(str(data['name']))}" if isinstance(data, dict) and data.get("name") else ""
    for state in callbacks.values() if isinstance(callbacks, dict) else ():
        if isinstance(state, dict) and state.get("monitor") == "val/acc":
            # the last epoch's own number, where the file is of that and not of the best
            score = state.get("current_score")
            if score is not None and 0 <= float(score) <= 1:
                return f"right on {float(score):.1%} of the split val{named}, by which its run chose an epoch"
    return _UNKNOWN


def _plain(text: str) -> str:
    """Return a text in which Markdown and HTML find nothing to obey."""
    return re.sub(r"([\\`*_{}\[\]()<>#+!|&~$])", r"\\\1", text)
