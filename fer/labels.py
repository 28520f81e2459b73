"""The taxonomy: class orders, names, and the maps between AffectNet, FER2013 and Darknet.

Data sets and models use FER2013's order (0 Angry .. 6 Neutral). AffectNet's csv codes are mapped into it by *name*.
Only the files that the Darknet program reads keep AffectNet's order (0 Neutral .. 6 Anger).

The *original experiment*, or the original, is the research code that this project grew from; the presets called
``seed_*`` are its networks, data and numbers. Everywhere else a seed is where random numbers start.
"""

import colorsys
from collections.abc import Sequence
from itertools import chain, count
from typing import Any

from fer.errors import InputError

#: FER2013's order, used by every prepared file, model, checkpoint and report.
CLASSES = ("Angry", "Disgust", "Fear", "Happy", "Sad", "Surprise", "Neutral")

#: AffectNet's eight-class set: the seven above and Contempt, last so that the first seven keep their numbers.
CLASSES_WITH_CONTEMPT = (*CLASSES, "Contempt")

#: AffectNet's csv codes 0..10 as the data set names them.
AFFECTNET = (
    "Neutral",
    "Happiness",
    "Sadness",
    "Surprise",
    "Fear",
    "Disgust",
    "Anger",
    "Contempt",
    "None",
    "Uncertain",
    "No-Face",
)

#: The most classes that a file may tell of; more would be memory for a last layer that no data set needs.
MAX_CLASSES = 10_000

#: The lines of ``emotion.names``: what class ids 0..6 mean in files for the Darknet program.
DARKNET = ("Neutral", "Happy", "Sad", "Surprise", "Fear", "Disgust", "Anger")

_SPELLINGS = {
    "Angry": ("angry", "anger"),
    "Disgust": ("disgust", "disgusted"),
    "Fear": ("fear", "fearful", "afraid", "scared"),
    "Happy": ("happy", "happiness", "joy"),
    "Sad": ("sad", "sadness"),
    "Surprise": ("surprise", "surprised"),
    "Neutral": ("neutral",),
    "Contempt": ("contempt", "contemptuous"),
}
#: RGB of the expressions in pictures, figures and on the page: Okabe and Ito's palette (2008), which stays apart for
#: colour-blind people too, and grey for Neutral.
_COLORS = {
    "Angry": (213, 94, 0),
    "Disgust": (0, 158, 115),
    "Fear": (204, 121, 167),
    "Happy": (240, 228, 66),
    "Sad": (0, 114, 178),
    "Surprise": (86, 180, 233),
    "Neutral": (187, 187, 187),
    "Contempt": (230, 159, 0),
}
_BY_SPELLING = {spelling: name for name, spellings in _SPELLINGS.items() for spelling in spellings}


def canonical(name: str) -> str | None:
    """Return the class that a spelling means (``"happiness"`` -> ``"Happy"``), or None for any other word."""
    return _BY_SPELLING.get(name.strip().lower())


def colors(classes: Sequence[str]) -> dict[str, tuple[int, int, int]]:
    """Return each class's colour, RGB 0..255: an expression's own in any spelling, what is left of them for others.

    Where there are more classes than that, hues far apart from one to the next.

    >>> colors(["happiness", "tired"])
    {'happiness': (240, 228, 66), 'tired': (213, 94, 0)}
    """
    known = {name: _COLORS[meant] for name in classes if (meant := canonical(name))}
    free = [color for color in _COLORS.values() if color not in known.values()]
    # the golden ratio's multiples leave no two hues close together, and the lightness differs from one to the next
    hues = (colorsys.hls_to_rgb(0.618034 * n % 1, (0.4, 0.7, 0.55)[n % 3], 0.75) for n in count())
    others = chain(free, ((round(255 * r), round(255 * g), round(255 * b)) for r, g, b in hues))
    return {name: known.get(name) or next(others) for name in classes}


def affectnet_to_label(code: int, classes: Sequence[str] = CLASSES) -> int | None:
    """Return the class index of an AffectNet code, or None when the class is dropped.

    With the seven default classes 7 Contempt, 8 None, 9 Uncertain and 10 No-Face are dropped; eight keep Contempt.

    >>> [affectnet_to_label(code) for code in range(11)]
    [6, 3, 4, 5, 2, 1, 0, None, None, None, None]

    Raises:
        InputError: the code is not one of AffectNet's.
    """
    if not 0 <= code < len(AFFECTNET):
        raise InputError(f"AffectNet expression code {code} is not in 0..{len(AFFECTNET) - 1}")
    name = canonical(AFFECTNET[code])
    return classes.index(name) if name in classes else None


def darknet_to_label(index: int) -> int:
    """Return the FER2013-order index of a Darknet class id (0 Neutral .. 6 Anger)."""
    return CLASSES.index(canonical(DARKNET[index]))


def label_to_darknet(label: int) -> int:
    """Return the Darknet class id of a FER2013-order index.

    >>> [label_to_darknet(label) for label in range(7)]
    [6, 5, 4, 1, 2, 3, 0]
    """
    return [canonical(name) for name in DARKNET].index(CLASSES[label])


def labels_from_file(values: Any, key: str = "labels", least: int = 2) -> list[str]:
    """Return the class names that a file says it has under ``key``: different texts, ``least`` or more.

    Raises:
        ValueError: naming the key.
    """
    if not isinstance(values, list | tuple) or not all(isinstance(name, str) and name for name in values):
        raise ValueError(f"{key}={values!r:.80} is not a list of texts")
    if not least <= len(values) <= MAX_CLASSES or len(set(values)) < len(values):
        raise ValueError(f"{key}={values!r:.80} is not a list of {least} to {MAX_CLASSES:,} different texts")
    return list(values)


def require_same(
    expected: Sequence[str], actual: Sequence[str], expected_name: str, actual_name: str, remedy: str = ""
) -> None:
    """Compare two lists of class names, order included; the names say in a message what has which.

    Raises:
        InputError: they differ; the message shows both.
    """
    if list(expected) != list(actual):
        raise InputError(
            f"class names differ: {expected_name} has {', '.join(expected)}; {actual_name} has {', '.join(actual)}"
            + (f"; {remedy}" if remedy else "")
        )
