"""What is said of an error that a part of the user's own raises while a training runs."""

import inspect
import traceback
from collections.abc import Mapping
from typing import Any

from torch import nn

from fer.errors import InputError, Interrupted, RankLost
from fer.targets import one_line


def named(error: Exception, parts: Mapping[str, Any]) -> InputError | None:
    """Return a line that names the part which raised an error, and the place in its file; None where it was none.

    ``parts`` are the objects by their keys, as callbacks.diary. It was the one whose method is the innermost frame of
    any of them, or else the one in whose file a frame lies, as that of a function beside it.
    """
    if isinstance(error, InputError | Interrupted | RankLost):
        return None
    frames = list(traceback.walk_tb(error.__traceback__))[::-1]
    owners = {id(module): key for key, part in parts.items() for module in _modules(part)}
    files: dict[str, list[str]] = {}
    for key, part in parts.items():
        files.setdefault(_file(part), []).append(key)
    for frame, line in frames:
        if (owner := owners.get(id(frame.f_locals.get("self")))) is not None:
            return _line(owner, error, frame.f_code.co_filename, line)
    for frame, line in frames:
        if keys := files.get(frame.f_code.co_filename):
            return _line(" or ".join(keys), error, frame.f_code.co_filename, line)
    return None


def _modules(part: Any) -> list[Any]:
    return list(part.modules()) if isinstance(part, nn.Module) else [part]


def _file(part: Any) -> str:
    try:
        return inspect.getsourcefile(type(part)) or ""
    except TypeError:
        # of a class that is built in
        return ""


def _line(key: str, error: Exception, file: str, line: int) -> InputError:
    return InputError(f"{key}: {one_line(error)} ({file}, line {line}); HYDRA_FULL_ERROR=1 shows all of it")
