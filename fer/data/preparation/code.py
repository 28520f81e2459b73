"""The code of readers as a hash: blocks that other code has decoded are not gone on with."""

import hashlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fer.data.source import Source
from fer.targets import locate

#: The package of our own readers and of what they read with.
_OURS = Path(__file__).resolve().parents[1]


def code_of(source: Source, data: Mapping[str, Any]) -> str:
    """Return a hash of our readers' code, and of that of the user's own one, which ``data.source`` names.

    The latter is its file, and what is imported of its package and of the current folder.
    """
    modules = {type(source).__module__}
    if own := data.get("source"):
        modules.add(locate(own["_target_"]).__module__)
    files = sorted(_OURS.rglob("*.py"))
    files += sorted({file for name in modules if not name.startswith("fer.") for file in _files(name)})
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def _files(name: str) -> Iterator[Path]:
    """Yield the files of a module, its package and the current folder that are imported."""
    package, here = name.partition(".")[0], os.getcwd()
    for other, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None) or ""
        # which script was started says nothing of the reader
        mine = other.partition(".")[0] == package or os.path.dirname(file) == here and other != "__main__"
        if mine and file.endswith(".py") and os.path.isfile(file):
            yield Path(file)
