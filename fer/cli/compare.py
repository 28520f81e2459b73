"""Compare training runs: ``fer compare --help``."""

import sys
from collections.abc import Sequence
from glob import glob, has_magic
from pathlib import Path

from fer.cli.errors import ends_quietly
from fer.errors import InputError, printable
from fer.runs.table import compare_runs

_HELP = """Compare training runs: what was changed between them, and what came of it.

  fer compare runs                        all runs below a folder, such as that of a sweep
  fer compare runs/A/DATE runs/B/DATE     run folders
  fer compare 'runs/*/2026-11-*'          patterns are taken in quotes too
  fer compare runs out=table.csv          also as csv

Keys (key=value):

  out=null                          FILE.csv: the table as csv, too

Columns: run, the changed keys, val/acc and balanced accuracy of the best epoch by val/acc, that epoch (of a Darknet
net the iteration), seconds, and how the run ended. They come from each run's run.json; folders without one, or with a
damaged one, are counted and named.
"""


@ends_quietly
def main(words: Sequence[str] = ()) -> None:
    """Run the command line; ``words`` are those before its arguments."""
    arguments = sys.argv[1 + len(words) :]
    if {"-h", "--help"} & set(arguments):
        print(_HELP, end="")
        return
    try:
        _compare(arguments)
    except InputError as error:
        print(f"error: {printable(error)}", file=sys.stderr)
        sys.exit(2)


def _compare(arguments: Sequence[str]) -> None:
    flags = [argument for argument in arguments if argument.startswith("-")]
    if flags:
        raise InputError(f"{flags[0]}: there is no such option; give run folders, and out=FILE.csv")
    outs = [argument.removeprefix("out=") for argument in arguments if argument.startswith("out=")]
    given = [argument for argument in arguments if not argument.startswith("out=")]
    if not given:
        raise InputError("no run to compare: give run folders, as `fer compare runs/NAME`")
    if len(outs) > 1 or "" in outs:
        raise InputError("out= is one file, as out=table.csv")
    table = compare_runs(folder for argument in given for folder in _folders(argument))
    print(table)
    if not table.rows:
        raise InputError(f"there is no run with a whole run.json in {', '.join(given)}")
    if outs:
        table.write_csv(Path(outs[0]))
        print(f"table: {outs[0]}")


def _folders(argument: str) -> list[Path]:
    """Return the folders that an argument stands for: itself where there is one of that name, else a pattern."""
    if Path(argument).exists() or not has_magic(argument):
        return [Path(argument)]
    return [Path(path) for path in sorted(glob(argument))]
