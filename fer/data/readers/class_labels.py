"""Which class a label means that people wrote: a word in any known spelling, or a number counted from 0 or from 1."""

import re
from collections.abc import Iterable, Sequence

from fer.errors import InputError
from fer.labels import CLASSES, CLASSES_WITH_CONTEMPT, canonical

# 3.0 is what pandas makes of a 3 in a column that has gaps; a longer number counts no classes
_NUMBER = re.compile(r"(\d{1,6})(\.0+)?", re.ASCII)


def whole_number(label: str) -> int | None:
    """Return the number that a label is, such as "3" or "3.0"; None for anything else.

    >>> whole_number("3"), whole_number("3.0"), whole_number("3.5"), whole_number("happy")
    (3, 3, None, None)
    """
    found = _NUMBER.fullmatch(label)
    return int(found[1]) if found else None


def name_classes(labels: Iterable[str]) -> tuple[str, ...]:
    """Return the class names that some labels mean: FER2013's order if all are expressions, else sorted as they are.

    Numbers are sorted by their value.

    >>> name_classes(["sadness", "joy"])[3], len(name_classes(["sad", "contempt"])), name_classes(["dog", "cat"])
    ('Happy', 8, ('cat', 'dog'))
    """
    labels = set(labels)
    meant = {canonical(label) for label in labels}
    if None in meant or not meant:
        numbers = {label: whole_number(label) for label in labels}
        return tuple(sorted(labels, key=lambda label: ((number := numbers[label]) is None, number or 0, label)))
    return CLASSES_WITH_CONTEMPT if "Contempt" in meant else CLASSES


def label_indices(
    labels: Iterable[str], class_names: Sequence[str], where: str
) -> tuple[dict[str, int | None], list[str]]:
    """Return the class index that each label means, None where it means none, and notes on how numbers were taken.

    A label is a class name in any known spelling, or a number. The numbers that occur must be all of 0..n-1 or all of
    1..n for n classes: nothing else tells where they start. ``where`` names the labels in messages.

    >>> label_indices(["joy", "hunger"], ("Sad", "Happy"), "a.csv")[0] == {"joy": 1, "hunger": None}
    True
    >>> label_indices(["1", "2"], ("Sad", "Happy"), "a.csv")[0] == {"1": 0, "2": 1}
    True

    Raises:
        InputError: other numbers.
    """
    labels = sorted(set(labels))
    indices = {label: _named(label, class_names) for label in labels}
    numbers = {
        label: number for label in labels if indices[label] is None and (number := whole_number(label)) is not None
    }
    if not numbers:
        return indices, []
    found, n = sorted(set(numbers.values())), len(class_names)
    start = found[0]
    if start > 1 or found != list(range(start, start + n)):
        shown = ", ".join(map(str, found[:12])) + (", ..." if len(found) > 12 else "")
        raise InputError(
            f"{where} are the numbers {shown}, which are neither 0..{n - 1} nor 1..{n} for the {n} classes of "
            "data.classes: write class names in their place, or give data.classes so that each number has its class"
        )
    said = ", ".join(f"{start + index} {name}" for index, name in enumerate(class_names))
    note = f"{where} are numbers, taken as data.classes in its order, from {start}: {said}"
    return indices | {label: number - start for label, number in numbers.items()}, [note]


def _named(label: str, class_names: Sequence[str]) -> int | None:
    if label in class_names:
        return class_names.index(label)
    meant = canonical(label)
    if meant is None:
        return None
    return next((index for index, known in enumerate(class_names) if canonical(known) == meant), None)
