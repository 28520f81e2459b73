"""Ctrl-C and SIGTERM while nothing else watches for them: an exception, and a note that it came.

Code that they cut may make another error of the exception, as an import does, or none at all.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_came = 0


class Terminated(KeyboardInterrupt):
    """SIGTERM came, with which services and schedulers end a program; it goes the way of Ctrl-C."""


def came() -> int:
    """Return which of the two came in the last `noticing`, the first of several; 0 where none did."""
    return _came


@contextmanager
def noticing() -> Iterator[None]:
    """Have the two raise in the main thread; a second SIGTERM ends the process at once, as it does without this.

    Within another one nothing is changed, nor of a signal that is to be ignored or that somebody else handles.
    """
    global _came
    usual: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    mine = [number for number, handler in usual.items() if signal.getsignal(number) is handler]
    if not mine or threading.current_thread() is not threading.main_thread():
        yield
        return
    _came = 0
    for number in mine:
        signal.signal(number, _notice)
    try:
        yield
    finally:
        for number in mine:
            signal.signal(number, usual[number])


def _notice(number: int, frame: FrameType | None) -> None:
    global _came
    _came = _came or number
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    signal.signal(number, signal.SIG_DFL)
    raise Terminated
