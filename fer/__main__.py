"""``python -m fer`` is the command ``fer``; the scripts of a checkout begin here, too."""

import os
import signal
from importlib import import_module


def start(name: str) -> None:
    """Run the ``main`` of ``fer.cli.NAME``; Ctrl-C while what it needs is imported ends with 130 and without a word."""
    # a shell that starts a program in the background may have it ignore Ctrl-C
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # no exception, of which the package that is being imported could make another one
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    main = import_module(f"fer.cli.{name}").main
    if signal.getsignal(signal.SIGINT) not in (signal.SIG_IGN, None):
        signal.signal(signal.SIGINT, signal.default_int_handler)
    main()


def main() -> None:
    """Run the command that the first word names."""
    start("main")


if __name__ == "__main__":
    main()
