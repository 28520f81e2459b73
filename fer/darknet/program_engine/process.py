"""Runs a darknet program so that no line of its output is lost and no process is left behind. Linux only."""

import collections
import contextlib
import ctypes
import os
import selectors
import signal
import subprocess
import tempfile
import threading
import time
import tty
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import FrameType
from typing import IO

from fer.darknet.formats.records import Complaint
from fer.darknet.program_engine.log import LineSplitter, parse_line
from fer.errors import InputError, Interrupted

#: Seconds between the request to end and the kill.
_GRACE = 5.0
_LAST_LINES = 20
_COMPLAINTS = 20
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


@dataclass(frozen=True, slots=True)
class Finished:
    """How a program ended: exit code (minus the signal's number if one killed it), complaints, last lines.

    The exit code alone says little: most of the programs' failures exit with 0. ``complaints`` are the first 20
    different ones; ``last_lines`` the last 20 of standard output and standard error in order of arrival.
    """

    program: str
    returncode: int
    complaints: tuple[str, ...]
    last_lines: tuple[str, ...]

    @property
    def signal(self) -> str | None:
        """Name of the signal that ended the program, e.g. SIGSEGV, or None."""
        return _signal_name(-self.returncode) if self.returncode < 0 else None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


def run(
    arguments: Sequence[str],
    cwd: Path,
    log: Path,
    on_line: Callable[[str], None],
    stdin: str | Path | None = None,
) -> Finished:
    """Run a program in ``cwd``; append each line to ``log``, then call ``on_line`` with it, both streams in order.

    Standard output is a terminal to the program, so that it writes line by line and a crash loses nothing; progress
    that overwrites itself comes as lines (`LineSplitter`). ``stdin`` is text, a file, or None for an empty input. The
    program has its own process group, which is ended before this returns or raises, and it is killed if we are.

    Raises:
        Interrupted: on SIGINT or SIGTERM (in the main thread); a second signal kills the program at once.
        InputError: if the program can't be started or the log can't be written.
        Exception: whatever ``on_line`` raises.
    """
    source: IO[bytes] | FileIO
    with contextlib.ExitStack() as stack:
        if isinstance(stdin, str):
            # a file and no pipe: nobody has to write while the program reads
            source = stack.enter_context(tempfile.TemporaryFile())
            source.write(stdin.encode())
            source.seek(0)
        else:
            source = _open(stack, stdin or Path(os.devnull), "rb")
        writer = _open(stack, log, "ab")
        received = stack.enter_context(_signals())
        master, slave = os.openpty()
        stack.callback(os.close, master)
        tty.setraw(slave)
        try:
            process = _start(arguments, cwd, source, slave)
        finally:
            os.close(slave)
        assert process.stderr is not None  # a pipe, see `_start`
        stack.enter_context(process.stderr)
        try:
            keep_lines = _LineKeeper(log, writer, on_line)
            _follow(process, {master: LineSplitter(), process.stderr.fileno(): LineSplitter()}, keep_lines, received)
        finally:
            _end(process, received)
        if received:
            raise Interrupted(received[0])
    return Finished(str(arguments[0]), process.returncode, tuple(keep_lines.complaints), tuple(keep_lines.last))


def explain(finished: Finished) -> str:
    """Return in one line how the program ended and its own words: its first complaint, else its last line."""
    name = Path(finished.program).name
    how = f"was ended by {finished.signal}" if finished.signal else f"ended with exit code {finished.returncode}"
    if finished.complaints:
        more = len(finished.complaints) - 1
        return f"{name} {how} and complained: {finished.complaints[0]}" + (f" (and {more} more)" if more else "")
    last_words = finished.last_lines[-1].strip() if finished.last_lines else None
    return f"{name} {how}; " + (f"its last words: {last_words}" if last_words else "it said nothing")


class _LineKeeper:
    """Appends lines to the log, remembers the last ones and the complaints, and hands them on."""

    def __init__(self, log: Path, writer: FileIO, on_line: Callable[[str], None]) -> None:
        self.last: collections.deque[str] = collections.deque(maxlen=_LAST_LINES)
        self.complaints: dict[str, None] = {}
        self._log, self._writer, self._on_line = log, writer, on_line

    def __call__(self, lines: Sequence[str]) -> None:
        if not lines:
            return
        rest = "".join(f"{line}\n" for line in lines).encode()
        try:
            while rest:
                rest = rest[self._writer.write(rest) :]
        except OSError as error:
            raise InputError(
                f"{self._log}: {error.strerror}; the program was stopped, make room and go on from its last weights"
            ) from error
        for line in lines:
            self.last.append(line)
            if isinstance(record := parse_line(line), Complaint) and len(self.complaints) < _COMPLAINTS:
                self.complaints[record.text] = None
            self._on_line(line)


def _open(stack: contextlib.ExitStack, path: Path, mode: str) -> FileIO:
    try:
        return stack.enter_context(FileIO(path, mode))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def _start(arguments: Sequence[str], cwd: Path, source: IO[bytes] | FileIO, output: int) -> subprocess.Popen[bytes]:
    us = os.getpid()

    def die_with_us() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
        if os.getppid() != us:
            os._exit(1)

    try:
        return subprocess.Popen(
            [str(a) for a in arguments], cwd=cwd, stdin=source, stdout=output, stderr=subprocess.PIPE, bufsize=0,
            env=os.environ | {"LC_ALL": "C"}, start_new_session=True, preexec_fn=die_with_us,
        )  # fmt: skip
    except OSError as error:
        raise InputError(f"{arguments[0]} can't be started in {cwd}: {error.strerror}") from error


def _follow(
    process: subprocess.Popen[bytes], streams: dict[int, LineSplitter], keep_lines: _LineKeeper, received: list[int]
) -> None:
    with selectors.DefaultSelector() as selector:
        for stream in streams:
            selector.register(stream, selectors.EVENT_READ)
        ended = False
        while selector.get_map():
            ready = selector.select(0 if ended else 0.2)
            # the program has ended but something that it started holds the streams open
            if ended and not ready:
                break
            ended = process.poll() is not None
            for key, _ in ready:
                try:
                    chunk = os.read(key.fd, 1 << 16)
                except OSError:  # EIO is the end of a terminal
                    chunk = b""
                keep_lines(streams[key.fd].feed(chunk) if chunk else streams[key.fd].close())
                if not chunk:
                    selector.unregister(key.fd)
            if received:
                raise Interrupted(received[0])
        for left in selector.get_map().values():
            keep_lines(streams[left.fd].close())
    while process.poll() is None:  # both streams closed before the end
        if received:
            raise Interrupted(received[0])
        time.sleep(0.05)


def _end(process: subprocess.Popen[bytes], received: list[int]) -> None:
    """End what is left of the process group: politely, then by force after a grace or at another signal."""
    signals, until = len(received), time.monotonic() + _GRACE
    left = _signal_group(process.pid, signal.SIGTERM)
    while left and time.monotonic() < until and len(received) == signals:
        time.sleep(0.02)
        process.poll()  # collected, the program itself is no longer part of the group
        left = _signal_group(process.pid, 0)
    if left:
        _signal_group(process.pid, signal.SIGKILL)
    process.wait()


def _signal_group(group: int, number: int) -> bool:
    """Send a signal (0: none) and return whether the group still exists."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect SIGINT and SIGTERM in a list, so that they take effect between two lines only."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received  # signals go to the main thread
        return

    def ask(number: int, frame: FrameType | None) -> None:
        received.append(number)

    before = {number: signal.signal(number, ask) for number in _SIGNALS}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
