"""Whose error it is: of code that the user gave, one line with the key that chose it, the file and the line."""

import inspect
import os
import re
import site
import sysconfig
import traceback
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

from fer.errors import InputError, Interrupted, RankLost
from fer.system.files import is_full

#: What Lightning calls, in its own frames, what it is about to ask.
_NAMES = ("self", "callback", "logger")
#: What Lightning has an optimiser call in its step: the loss of a batch, which is none of its own code.
_CLOSURE = "_wrap_closure"
#: Torch's way back through what the parts here have computed, with no frame of theirs.
_BACKWARD, _DIFFERENTIATED = "_engine_run_backward", ("model", "loss", "augment")
#: A frame in the text of a traceback.
_FRAME = re.compile(r'^  File "(.+)", line (\d+), in ')


def one_line(error: BaseException) -> str:
    """Return what an error says, with its kind in front; of one that says nothing the place where it was raised."""
    if text := " ".join(_text(error).split())[:200]:
        return f"{type(error).__name__}: {text}"
    frames = traceback.extract_tb(error.__traceback__)
    place = f" in {frames[-1].filename}, line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{place}"


def named(error: Exception, parts: Mapping[str, Any], made_by: Mapping[str, Any] | None = None) -> InputError | None:
    """Return a line that names the part which raised an error, and the place in its file; None where no part did.

    ``parts`` are the objects by their keys, as callbacks.diary; ``made_by`` the classes or functions that made them,
    by the same keys. It was the part of which a method is the innermost frame, or else the one in whose file a frame
    lies. Where neither is so but a frame is in a file of the user's, the line names the file alone.
    """
    if (line := _of_a_worker(error, "data" in parts)) is not None:
        return line
    if isinstance(error, InputError | Interrupted | RankLost) or is_full(error):
        return None
    frames = list(traceback.walk_tb(error.__traceback__))[::-1]
    key = _owner(frames, parts) or _by_file(frames, parts, made_by or {})
    makers = [(made_by or {}).get(key), type(parts[key])] if key in parts else []
    roots = {_root(getattr(maker, "__module__", None)) for maker in makers} - {"fer"}
    for frame, number in frames:
        file = frame.f_code.co_filename
        if _root(frame.f_globals.get("__name__")) in roots or is_users(file):
            return _line(key, one_line(error), file, number)
    # a part of a library's, of which no code ran
    return _line(key, one_line(error), frames[0][0].f_code.co_filename, frames[0][1]) if key else None


def _owner(frames: Sequence[tuple[FrameType, int]], parts: Mapping[str, Any]) -> str:
    owners = {id(module): key for key, part in parts.items() for module in _modules(part)}
    called = set[str]()
    for frame, _ in frames:
        called.add(frame.f_code.co_name)
        for name in _NAMES:
            value = frame.f_locals.get(name)
            key = owners.get(id(value), "")
            if not key and "data" in parts and type(value).__module__ == "torch.utils.data.dataloader":
                key = "data"
            if key and not (key == "optimizer" and _CLOSURE in called):
                return key
    return " or ".join(key for key in _DIFFERENTIATED if key in parts) if _BACKWARD in called else ""


def _by_file(frames: Sequence[tuple[FrameType, int]], parts: Mapping[str, Any], made_by: Mapping[str, Any]) -> str:
    files: dict[str, dict[str, None]] = {}
    for key, part in parts.items():
        for maker in (type(part), made_by.get(key)):
            files.setdefault(_file(maker), {})[key] = None
    for frame, _ in frames:
        if (file := frame.f_code.co_filename) in files and is_users(file):
            return " or ".join(files[file])
    return ""


def is_users(file: str) -> bool:
    """Whether code is the user's own: neither of Python, nor installed, nor ours."""
    return not file.startswith("<") and not any(Path(file).is_relative_to(folder) for folder in _libraries())


@cache
def _libraries() -> list[str]:
    paths = sysconfig.get_paths()
    found = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    return [*found, *site.getsitepackages(), site.getusersitepackages(), os.path.dirname(os.path.abspath(__file__))]


def _root(module: Any) -> str:
    return str(module).split(".")[0]


def _modules(part: Any) -> list[Any]:
    # of a torch.nn.Module; torch itself is not needed to tell
    inner = getattr(part, "modules", None)
    return [*inner()] if callable(inner) else [part]


def _file(maker: Any) -> str:
    try:
        return inspect.getsourcefile(maker) or ""
    except TypeError:
        # of a class that is built in
        return ""


def _of_a_worker(error: Exception, own: bool) -> InputError | None:
    """Return a line for an error of a process that loads data, of which a DataLoader makes one anew from its text.

    ``own`` says that the data is of code that the user gave.
    """
    text = _text(error)
    if text.startswith("DataLoader worker (pid"):
        said = text.split(". ")[0].rstrip(".")
        return InputError(f"num_workers: {said}; give fewer where memory is short, or num_workers=0, which has none")
    if not text.startswith("Caught ") or "\nOriginal Traceback (most recent call last):\n" not in text:
        return None
    lines = text.rpartition("Traceback (most recent call last):\n")[2].splitlines()
    first = next((number for number, line in enumerate(lines) if not line.startswith(" ")), len(lines) - 1)
    said = " ".join(" ".join(lines[first:]).split())
    if isinstance(error, InputError):
        return InputError(said.split(": ", 1)[-1])
    frames = [(match[1], int(match[2])) for line in lines[:first] if (match := _FRAME.match(line))][::-1]
    place = next((frame for frame in frames if is_users(frame[0])), frames[0] if frames else None)
    if place is None or not (own or is_users(place[0])):
        return None
    kind, _, what = said.partition(": ")
    return _line("data", f"{kind.rpartition('.')[2]}: {what[:200]}" if what else said, *place)


def _line(key: str, said: str, file: str, line: int) -> InputError:
    return InputError(f"{f'{key}: ' if key else ''}{said} ({file}, line {line}); HYDRA_FULL_ERROR=1 shows all of it")


def _text(error: BaseException) -> str:
    try:
        # of a worker's, its text as it was sent, with its lines
        return str(error.args[0]) if isinstance(error, InputError) else str(error)
    except Exception:
        # somebody's own class may fail at this too
        return ""
