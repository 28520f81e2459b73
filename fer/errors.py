"""The exceptions that users are meant to see."""

import difflib
import re
import signal
from collections.abc import Iterable
from pathlib import Path


def closest(word: str, valid: Iterable[str]) -> str:
    """Return `` (did you mean ...?)`` for a misspelt word, or nothing."""
    matches = difflib.get_close_matches(word, list(valid), 1)
    return f" (did you mean {matches[0]}?)" if matches else ""


def printable(text: object) -> str:
    """Return a text in one line, with what a terminal would obey, such as an escape, as its code in Python."""
    line = " ".join(str(text).split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


class InputError(ValueError):
    """Something the user gave is wrong; the message is one line that names the file or key and the remedy.

    The entry points print it after ``error:`` and exit with code 2, without a traceback.

    >>> print(InputError("face\\x1b[2J.jpg: truncated\\n  at its end"))
    face\\x1b[2J.jpg: truncated at its end
    """

    def __str__(self) -> str:
        # what ends a line or moves the cursor stands in the name of a file or in what a library says
        line = re.sub(r"\s*[\r\n\x85\u2028\u2029]\s*", " ", super().__str__())
        return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda found: repr(found[0])[1:-1], line)


class Interrupted(Exception):
    """A signal asked us to stop, and nothing is left running; the exit code is 128 + signal."""

    def __init__(self, number: int, remedy: str = "") -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}{remedy}")
        self.signal = number


class Stopped(Interrupted):
    """Training was stopped by a signal and has saved a checkpoint that resumes."""

    def __init__(self, number: int, checkpoint: Path) -> None:
        super().__init__(number, f"; go on with the same command and resume={checkpoint}")


class RankLost(Exception):
    """Another process of a training run ended or does not answer; the exit code is 1."""

    def __init__(self, rank: int, checkpoint: Path, reason: str) -> None:
        # gloo puts the source file of its own in front, and advice behind
        reason = " ".join(reason.split("] ", 1)[-1].split(". This is typically")[0].split())[:200]
        super().__init__(
            f"rank {rank}: another process of this run ended or does not answer ({reason}); go on with the same "
            f"command and resume={checkpoint}, or without resume where that is not there yet"
        )
