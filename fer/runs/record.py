"""run.json of a run folder: what was run, on what, where and when, and what came of it.

It is written at the start and completed at the end, each time whole. Keys:

* ``version`` of this layout; ``command``, as the shell takes it, and the ``directory`` that it was given in;
  ``overrides`` of the config, ``config`` as composed and checked, ``tags``, ``notes``; ``resumed_from``
* what `fer.runs.surroundings` says: ``git``, ``python``, ``system``, ``packages``, ``hardware``
* ``data``: the prepared file and its ``fingerprint``; ``darknet``: of a Darknet run what its reports are made of
* ``started`` and ``ended`` with the offset from UTC, ``seconds``, ``exit``: null while it runs, and of a run that was
  killed; "finished", "stopped by SIGTERM; ...", "error: ..."
* ``result``: ``scores`` of the best checkpoint by name, its ``epoch`` (of a Darknet net ``iteration``), ``parameters``
* ``earlier``: the records of runs that wrote into the same folder before
"""

import functools
import json
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from fer.errors import InputError, Interrupted, printable
from fer.runs.surroundings import surroundings
from fer.system.addresses import without_passwords
from fer.system.distributed import is_first_rank
from fer.system.files import replacing
from fer.system.signals import came

FILE = "run.json"
VERSION = 1

Result = TypeVar("Result")
Train = Callable[[dict[str, Any], Path], Result]


def recorded(train: Train[Result]) -> Train[Result]:
    """Have a ``train(config, out)`` keep a record of its run in ``out``, on the first rank.

    Raises:
        InputError: the record cannot be written.
    """

    @functools.wraps(train)
    def with_record(config: dict[str, Any], out: Path) -> Result:
        if not is_first_rank():
            return train(config, out)
        clock = time.monotonic()
        _begin(config, out)
        try:
            result = train(config, out)
        except BaseException as error:
            # a full disk may be what ended it, and that is what should be said
            with suppress(InputError):
                note(out, **_end(clock, _reason(error)))
            raise
        note(out, **_end(clock, "finished"))
        return result

    return with_record


def note(folder: Path, **parts: Any) -> None:
    """Set parts of the record of a run folder, which need not be there yet; passwords in addresses are left out.

    Raises:
        InputError: it cannot be written.
    """
    _write(folder, (_read(folder / FILE) or {"version": VERSION}) | parts)


def read_record(folder: Path) -> dict[str, Any]:
    """Return the record of a run folder.

    Raises:
        InputError: there is none, or it is damaged or of before 0.3.
    """
    path = folder / FILE
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    record = _read(path)
    if record is None or not _is_whole(record):
        raise InputError(f"{path}: is damaged, or of no run that keeps a record")
    return record


def _begin(config: dict[str, Any], out: Path) -> None:
    before = _read(out / FILE)
    earlier = [*before.pop("earlier", []), before] if before else []
    record = {
        "version": VERSION,
        "command": _command(),
        "directory": os.getcwd(),
        "overrides": _overrides(),
        "config": config,
        "tags": config.get("tags") or [],
        "notes": config.get("notes"),
        "resumed_from": _resumed_from(config.get("resume")),
        **surroundings(),
        "data": None,
        "started": _now(),
        "ended": None,
        "seconds": None,
        "exit": None,
        "result": None,
    }
    _write(out, record | ({"earlier": earlier} if earlier else {}))


def _end(clock: float, exit: str) -> dict[str, Any]:
    return {"ended": _now(), "seconds": round(time.monotonic() - clock, 2), "exit": exit}


def _reason(error: BaseException) -> str:
    try:
        line = printable(error)
    except Exception:
        # a class of the user's, whose error is to be seen and not this one
        line = ""
    if isinstance(error, Interrupted):
        return line
    # of which other code may have made another error
    if number := came() or (signal.SIGINT if isinstance(error, KeyboardInterrupt) else 0):
        return f"stopped by {signal.Signals(number).name}"
    return f"error: {line}" if isinstance(error, InputError) else f"error: {type(error).__name__}: {line}"


def _command() -> str:
    program = ["python"] if sys.argv[0].endswith(".py") else []
    return shlex.join(without_passwords([*program, *sys.argv]))


def _overrides() -> list[str]:
    """Return the overrides of Hydra's job, none in a program without Hydra."""
    from hydra.core.hydra_config import HydraConfig

    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


def _resumed_from(resume: str | None) -> dict[str, Any] | None:
    """Return the checkpoint (or Darknet run folder) that a run goes on from, and when its run began, if it tells."""
    if not resume:
        return None
    path = Path(os.path.abspath(resume))
    records = (_read(folder / FILE) for folder in (path, path.parent, path.parent.parent))
    started = next((record.get("started") for record in records if record), None)
    return {"checkpoint": str(path), "started": started}


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _read(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) and isinstance(content.get("version"), int) else None


def _write(folder: Path, record: dict[str, Any]) -> None:
    text = json.dumps(without_passwords(record), indent=1, default=str)
    with replacing(folder / FILE) as temporary:
        temporary.write_text(f"{text}\n", "utf-8", errors="replace")


def _is_whole(record: dict[str, Any]) -> bool:
    """Whether what tables show of a record has its type."""
    result = record.get("result")
    scores = {} if result is None else result.get("scores") if isinstance(result, dict) else None
    number = (int, float, type(None))
    return (
        isinstance(record.get("config"), dict)
        and isinstance(record.get("overrides"), list)
        and all(isinstance(override, str) for override in record["overrides"])
        and isinstance(record.get("started"), str)
        and isinstance(record.get("exit"), str | None)
        and isinstance(record.get("seconds"), number)
        and isinstance(scores, dict)
        and all(isinstance(name, str) and isinstance(value, number) for name, value in scores.items())
        and (result is None or all(isinstance(result.get(key), int | None) for key in ("epoch", "iteration")))
    )
