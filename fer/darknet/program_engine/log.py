"""Reads what the darknet programs print: bytes to lines, and a line to the record that it stands for."""

import codecs
import math
import re
from collections.abc import Callable

from fer.darknet.formats.records import (
    ClassAP,
    Complaint,
    LastAccuracy,
    Loaded,
    Matches,
    MeanAP,
    Record,
    Saving,
    Seen,
    Step,
    Thresholds,
    TopK,
)

#: A line longer than this is no line of the program's; it is cut so that a flood can't fill the memory.
_LONGEST = 1 << 16
_CONTROLS = re.compile(r"\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_PROMPTS = re.compile(r'Enter Image Path: |Type "yes" to begin training, or anything else to quit: *')


class LineSplitter:
    r"""Cuts the bytes of one stream into lines of text at ``\n`` and ``\r``, wherever the chunks end.

    Terminal control sequences, bells, the prompts that run into the next line and blank lines are left out; bytes that
    are no UTF-8 become U+FFFD.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def feed(self, chunk: bytes) -> list[str]:
        """Return the lines that end in this chunk."""
        *lines, self._rest = re.split(r"[\r\n]", self._rest + self._decoder.decode(chunk))
        if len(self._rest) > _LONGEST:
            lines.append(self._rest)
            self._rest = ""
        return [line for line in map(_clean, lines) if line]

    def close(self) -> list[str]:
        """Return the last line, which had no end, if there is one."""
        return self.feed(self._decoder.decode(b"", final=True).encode() + b"\n")


def _clean(line: str) -> str:
    line = _PROMPTS.sub("", _CONTROLS.sub("", line))
    return line.rstrip() if line.strip() else ""


_HOURS = {"nanoseconds": 1 / 3.6e12, "microseconds": 1 / 3.6e9, "milliseconds": 1 / 3.6e6, "seconds": 1 / 3600}
_HOURS |= {"minutes": 1 / 60, "hours": 1, "days": 24, "weeks": 168, "months": 730, "years": 8766}


def _hours(text: str) -> float | None:
    match = re.fullmatch(r"([\d.]+) ([a-z]+?)s?", text.strip())
    if match is None or f"{match[2]}s" not in _HOURS:
        return None
    return float(match[1]) * _HOURS[f"{match[2]}s"]


def _step(m: re.Match) -> Step:
    loss, average, rate, seconds = (float(m[key]) for key in ("loss", "average", "rate", "seconds"))
    epoch, hours = (None if m[key] is None else float(m[key]) for key in ("epoch", "hours"))
    # AlexeyAB's has no guess at the first iteration and prints -1
    hours = None if hours is None or hours < 0 else hours
    return Step(int(m["it"]), loss, average, rate, seconds, int(m["images"]), epoch, hours)


def _hank_step(m: re.Match) -> Step:
    seconds = _hours(m["train"])
    seconds = math.nan if seconds is None else seconds * 3600
    return Step(
        int(m["it"]), float(m["loss"]), float(m["average"]), float(m["rate"]), seconds, int(m["images"]),
        hours_left=_hours(m["left"]),
    )  # fmt: skip


def _mean_ap(m: re.Match) -> MeanAP:
    value = float(m["value"]) / (100 if m["percent"] else 1)
    return MeanAP(value if 0 <= value <= 1 else None, float(m["iou"]))


_N = r"[-+]?(?:[\d.]+(?:e[-+]?\d+)?|nan|inf)"


def _complaint(m: re.Match) -> Complaint:
    # the number of the layer, which runs into what is said about it, would make 72 complaints out of one
    return Complaint(re.sub(r"^\s*(\d+ |\* Error message: *)", "", m.string).strip())


_COMPLAINTS = (
    r"Couldn't (open file|find activation|find cost type|find policy)|Cannot load image|Can't open label file",
    r"Type not recognized|Unused field|is unused or invalid|Too many or too few labels|Config file error",
    r"Wrong (annotation|label|iou_thresh_kind)|class_id=\d+ >= classes|Unexpected end of we?ights-file",
    r"must output image",
    r"^\* Error message:|Not an option|There isn't such command|Layer type is not",
    r"^\s*Error\b|error location|Darknet error|fatal error",
    r"CUDA (status )?Error|CUDA out of memory|cuDNN (status )?Error|out of memory|[mc]alloc error",
    r"error while loading shared libraries|Assertion .* failed|free\(\)|munmap_chunk|corrupted ",
    r"No such file or directory",
    r"could not connect to display|No space left on device",
)
#: What each line looks like, in the order of trial; the last words of a line may be those of another stream's prologue.
_LINES: tuple[tuple[re.Pattern, Callable[[re.Match], Record]], ...] = tuple(
    (re.compile(pattern), make)
    for pattern, make in (
        (
            rf"^\s*(?P<it>\d+)(?:, (?P<epoch>{_N}))?: (?P<loss>{_N}), (?P<average>{_N}) avg(?: loss)?, "
            rf"(?P<rate>{_N}) rate, (?P<seconds>{_N}) seconds, (?P<images>\d+) images(?:, (?P<hours>{_N}) hours left)?",
            _step,
        ),
        (
            rf"^\s*(?P<it>\d+): loss=(?P<loss>{_N}), avg loss=(?P<average>{_N}),.* rate=(?P<rate>{_N}),.* "
            r"train=(?P<train>[^,]+), (?P<images>\d+) images, time remaining=(?P<left>.*)",
            _hank_step,
        ),
        (
            rf"^\s*(\d+): top 1: ({_N}), top (\d+): ({_N})",
            # the program counts photos from 0
            lambda m: TopK(int(m[1]) + 1, float(m[2]), int(m[3]), float(m[4])),
        ),
        (r"Saving weights to (.+)", lambda m: Saving(m[1])),
        (
            r"Loading weights from (.+?)\.\.\.\s*Done!(?: Loaded (\d+) layers from weights-file)?",
            lambda m: Loaded(m[1], int(m[2]) if m[2] else None),
        ),
        # hank-ai's; its first number is of the layers that have weights, so it isn't compared
        (r"Loaded .+ in weights for \d+ of \d+ layers from (.+)", lambda m: Loaded(m[1], None)),
        (
            rf"class_id = (\d+), name = (.*), ap = ({_N})\s*%\s+\(TP = (\d+), FP = (\d+)\)",
            lambda m: ClassAP(int(m[1]), m[2], float(m[3]) / 100, int(m[4]), int(m[5])),
        ),
        (
            # hank-ai's table: class, AP in %, TP, FP, FN, boxes, F1, IoU
            rf"^\s*(\d+) (.+?)\s+({_N})\s+(\d+)\s+(\d+)\s+\d+\s+\d+\s+{_N}\s+{_N}$",
            lambda m: ClassAP(int(m[1]), m[2], float(m[3]) / 100, int(m[4]), int(m[5])),
        ),
        (
            rf"for conf_thresh ?= ?({_N}), precision ?= ?({_N}), recall ?= ?({_N}), F1[- ]score ?= ?({_N})",
            lambda m: Thresholds(*map(float, m.groups())),
        ),
        (
            rf"for conf_thresh ?= ?({_N}), TP ?= ?(\d+), FP ?= ?(\d+), FN ?= ?(\d+), average IoU ?= ?({_N}) ?%",
            lambda m: Matches(float(m[1]), int(m[2]), int(m[3]), int(m[4]), float(m[5]) / 100),
        ),
        (
            rf"mean[ _]average[ _]precision \(mAP@(?P<iou>[\d.]+)\) ?= ?(?P<value>{_N})(?P<percent> ?%)?",
            _mean_ap,
        ),
        (
            rf"Last accuracy (\S+) = ({_N}) %(?:, best = ({_N}) %)?",
            lambda m: LastAccuracy(m[1].replace("TOP", "top"), float(m[2]) / 100, float(m[3]) / 100 if m[3] else None),
        ),
        (rf"^\s*accuracy (top\d+) = ({_N})", lambda m: LastAccuracy(m[1], float(m[2]))),
        (r"^\s*seen \d+, trained: (\d+) K-images", lambda m: Seen(int(m[1]) * 1000)),
        ("|".join(_COMPLAINTS), _complaint),
    )
)


def parse_line(text: str) -> Record | None:
    """Return the record that a line of any of the three programs stands for, None for the rest of the flood."""
    for pattern, make in _LINES:
        if match := pattern.search(text):
            return make(match)
    return None
