"""The two exceptions that users are meant to see."""

import signal
from pathlib import Path


class InputError(ValueError):
    """Something the user gave is wrong; the message is one line that names the file or key and the remedy.

    The entry points print it after ``error:`` and exit with code 2, without a traceback.
    """


class Stopped(Exception):
    """Training was stopped by a signal and has saved a checkpoint that resumes; the exit code is 128 + signal."""

    def __init__(self, number: int, checkpoint: Path) -> None:
        super().__init__(
            f"stopped by {signal.Signals(number).name}; go on with the same command and resume={checkpoint}"
        )
        self.signal = number
