"""A family of files that is fuzzed: what can be done to its files, how they are opened, and what is right."""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from fer.errors import InputError
from tests.fuzz.mutations import Case

#: What a case can come to; the first two are as they should be.
KINDS = ("clean", "accepted", "traceback", "silent")


class Wrong(Exception):
    """A value was accepted that is not the right one."""


def require(right: object, text: str) -> None:
    """Raise `Wrong` with a text where something is not so."""
    if not right:
        raise Wrong(text)


@dataclass(frozen=True)
class Family:
    """Files of one kind.

    ``whole`` gives files as they should be, each as a case; ``cases`` makes the strategy of changed files. ``open``
    writes a case into a folder, the same for all cases, reads it as the program does, and raises `Wrong` where what it
    got is not the right value. ``clean`` are the exceptions that the entry points print in one line, as ``one_line``
    makes it. Of families whose cases take long, ``share`` of the examples are run.
    """

    name: str
    whole: Callable[[], list[Case]]
    cases: Callable[[], st.SearchStrategy[Case]]
    open: Callable[[Case, Path], None]
    clean: tuple[type[Exception], ...] = (InputError,)
    one_line: Callable[[Exception], str] = str
    share: float = 1.0


def judge(family: Family, case: Case, folder: Path) -> tuple[str, str]:
    """Return which of `KINDS` a case comes to, and the message or what is wrong."""
    try:
        family.open(case, folder)
    except family.clean as error:
        message = family.one_line(error)
        if message.strip() and "\n" not in message and len(message) < 12_000:
            return "clean", message
        return "traceback", f"not one line: {message[:200]!r}"
    except Wrong as wrong:
        return "silent", str(wrong)
    except MemoryError as error:
        return "traceback", f"MemoryError: {error}"
    except Exception as error:
        return "traceback", f"{type(error).__name__}: {str(error)[:150]}"
    return "accepted", ""


def run(family: Family, examples: int, number: int, see: Callable[[Case, str, str], None], shrink: bool = True) -> None:
    """Give ``see`` so many cases of a family with what each comes to; ``number`` is the random seed.

    What ``see`` raises is the failing example that hypothesis makes small and prints.
    """
    phases = (Phase.generate, Phase.shrink) if shrink else (Phase.generate,)

    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:

        @seed(number)
        @settings(
            max_examples=max(1, round(family.share * examples)), phases=phases, deadline=None, database=None,
            print_blob=True, suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(family.cases())
        def one(case: Case) -> None:
            see(case, *judge(family, case, Path(folder)))

        one()


@cache
def workplace() -> Path:
    """A folder for what all cases of a process read, gone with the process."""
    holder = tempfile.TemporaryDirectory(prefix="fuzz-shared-")
    _HELD.append(holder)
    return Path(holder.name)


_HELD: list[tempfile.TemporaryDirectory[str]] = []


def fuzz_seed() -> int:
    """Return the seed of a run: FUZZ_SEED, by default the same in every run."""
    return int(os.environ.get("FUZZ_SEED", "16"))
