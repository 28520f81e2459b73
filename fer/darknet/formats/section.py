"""One [section] of a cfg, and the numbers in its options."""

import re
from dataclasses import dataclass, field
from math import isfinite, nan

from fer.errors import InputError


@dataclass(frozen=True, slots=True)
class Section:
    """One [section] of a cfg: its kind by the long name, its options, and where it stood, for messages."""

    kind: str
    options: dict[str, str]
    line: int = field(default=0, compare=False)
    file: str = field(default="", compare=False)

    @property
    def where(self) -> str:
        """How messages call the section: "net.cfg:12: [yolo]"."""
        return f"{self.file}:{self.line}: [{self.kind}]" if self.line else f"[{self.kind}]"


def integer(section: Section, key: str, default: int | None = None) -> int:
    """Return a whole number from a section's options.

    Raises:
        InputError: it is not a whole number (the program would take its first digits or 0), or missing without default.
    """
    value = section.options.get(key)
    if value is None and default is not None:
        return default
    if value is None:
        raise InputError(f"{section.where}: needs {key}=")
    return _to_integer(section, key, value)


def positive(section: Section, key: str, default: int | None = None) -> int:
    """Return a whole number of at least 1 from a section's options.

    Raises:
        InputError: as `integer`, or it is 0 or less.
    """
    value = integer(section, key, default)
    if value < 1:
        raise InputError(f"{section.where}: {key}={value} is not positive")
    return value


def number(section: Section, key: str, default: float) -> float:
    """Return one number from a section's options.

    Raises:
        InputError: there are several, or it is none.
    """
    values = numbers(section, key) or [default]
    if len(values) != 1:
        raise InputError(f"{section.where}: {key}={section.options[key]} is not one number")
    return float(values[0])


def numbers(section: Section, key: str) -> list[float]:
    """Return a comma-separated list of numbers from a section's options, empty where the key is not there.

    Raises:
        InputError: something else stands in the list, or a number that is not finite.
    """
    try:
        values = [float(item) for item in _items(section, key)]
    except ValueError:
        values = [nan]
    if not all(map(isfinite, values)):
        raise InputError(f"{section.where}: {key}={section.options[key]} is no list of numbers")
    return values


def integers(section: Section, key: str) -> list[int]:
    """Return a comma-separated list of whole numbers from a section's options, empty where the key is not there.

    Raises:
        InputError: something else stands in the list.
    """
    return [_to_integer(section, key, item) for item in _items(section, key)]


def _items(section: Section, key: str) -> list[str]:
    return section.options[key].rstrip(",").split(",") if key in section.options else []


def _to_integer(section: Section, key: str, text: str) -> int:
    # digits of other scripts are none to the programs;
    # more digits than any size or seed has are a slip, and Python converts no more than 4,300
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        whole = re.match(r"[+-]?[0-9]{1,18}(?=\.?0*\W*$)", text)
        remedy = f": write {whole[0]}" if whole else ""
        raise InputError(f"{section.where}: {key}={section.options[key]} is no whole number{remedy}")
    return int(text)
