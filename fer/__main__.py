"""``python -m fer`` is the command ``fer``; the scripts of a checkout begin here, too."""

import os
import signal
from importlib import import_module
from typing import Any


def start(name: str) -> None:
    """Run the ``main`` of ``fer.cli.NAME``; Ctrl-C and SIGTERM while what it needs is imported end it at once."""
    usual: dict[int, Any] = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    # a shell that starts a program in the background may have it ignore Ctrl-C
    mine = [number for number, handler in usual.items() if signal.getsignal(number) is handler]
    for number in mine:
        # no exception, of which the package that is being imported could make another one
        signal.signal(number, _leave)
    run = import_module(f"fer.cli.{name}").main
    for number in mine:
        signal.signal(number, usual[number])
    run()


def _leave(number: int, _: object) -> None:
    if number == signal.SIGTERM:
        os.write(2, b"stopped by SIGTERM\n")
    os._exit(128 + number)


def main() -> None:
    """Run the command that the first word names."""
    start("main")


if __name__ == "__main__":
    main()
