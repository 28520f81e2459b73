"""Count what the cases of each family come to: ``python -m tests.fuzz.count [EXAMPLES] [--family NAME] [--seed N]``.

One line a family with the numbers of clean one-line errors, of files accepted with the right value, of tracebacks and
of wrong values; below, for each kind of change that failed, how often and with what.
"""

import argparse
import os
import time
from collections import Counter

from tests.fuzz.family import KINDS, Family, fuzz_seed, run
from tests.fuzz.mutations import Case


def count(
    family: Family, examples: int, number: int, show: bool = False
) -> tuple[Counter[str], Counter[tuple[str, str, str]]]:
    """Return how many cases came to each kind, and of the failing ones how, what and with which message."""
    kinds, failures = Counter[str](), Counter[tuple[str, str, str]]()

    def see(case: Case, kind: str, text: str) -> None:
        kinds[kind] += 1
        if kind in KINDS[2:]:
            note = "" if case.note is None else f" ({case.note!r:.60})"
            failures[case.how + note, kind, text[:110]] += 1
            if show:
                print(f"{case.how}{note}: {text}\n{case.content!r:.3000}\n")

    run(family, examples, number, see, shrink=False)
    return kinds, failures


def main() -> None:
    from tests.fuzz.families import FAMILIES

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "examples",
        nargs="?",
        type=int,
        default=500,
        help="of each family; a part of it of families whose cases take long",
    )
    parser.add_argument("--family", action="append", help="only this one; may be given several times")
    parser.add_argument("--seed", type=int, default=fuzz_seed())
    parser.add_argument(
        "--failures",
        type=int,
        default=5,
        help="how many kinds of failure to print of each family; a part of it of families whose cases take long",
    )
    parser.add_argument("--show", action="store_true", help="the whole content of what fails")
    options = parser.parse_args()
    total, below = Counter[str](), []
    print(f"{'family':24}" + "".join(f"{kind:>11}" for kind in KINDS) + f"{'CPU s':>8}")
    for family in FAMILIES:
        if options.family and family.name not in options.family:
            continue
        start = time.process_time()
        kinds, failures = count(family, options.examples, options.seed, options.show)
        total += kinds
        seconds = time.process_time() - start
        print(f"{family.name:24}" + "".join(f"{kinds[kind]:11,}" for kind in KINDS) + f"{seconds:8.1f}", flush=True)
        below += [(family.name, *failure, n) for failure, n in failures.most_common(options.failures)]
    print(f"{'all':24}" + "".join(f"{total[kind]:11,}" for kind in KINDS))
    for name, how, kind, text, n in below:
        print(f"{n:5} {name} | {how} | {kind} | {text}")


if __name__ == "__main__":
    # what the readers print of a file is not wanted here
    os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
    main()
