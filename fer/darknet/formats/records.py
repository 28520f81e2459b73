"""What happens in a run and in a scoring, as records: the lines of the programs' output, and the torch engine's own."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Step:
    """One training iteration; numbers may be NaN or infinite.

    ``seconds`` is wall time, but for AlexeyAB's classifier processor time summed over its threads. ``images`` counts
    from the start of training, over resumes. What a program doesn't tell is None.
    """

    iteration: int
    loss: float
    average: float
    rate: float
    seconds: float
    images: int
    epoch: float | None = None
    hours_left: float | None = None


@dataclass(frozen=True, slots=True)
class TopK:
    """Accuracy over the first ``seen`` photos of the valid list, as fractions; the last line is that of the list."""

    seen: int
    top1: float
    k: int
    topk: float


@dataclass(frozen=True, slots=True)
class LastAccuracy:
    """A score repeated while training: ``measure`` as printed ("top5", "mAP@0.50"), as fractions."""

    measure: str
    value: float
    best: float | None = None


@dataclass(frozen=True, slots=True)
class ClassAP:
    """Average precision of one class as a fraction; true and false positives at the confidence threshold."""

    index: int
    name: str
    ap: float
    tp: int
    fp: int


@dataclass(frozen=True, slots=True)
class Thresholds:
    """Scores at one confidence threshold, as fractions; precision is NaN when nothing passes it."""

    threshold: float
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True, slots=True)
class Matches:
    """Counts at one confidence threshold, and the mean IoU of the detections that pass it, as a fraction."""

    threshold: float
    tp: int
    fp: int
    fn: int
    iou: float


@dataclass(frozen=True, slots=True)
class MeanAP:
    """Mean average precision as a fraction at an IoU; None where the program printed no possible value.

    AlexeyAB's prints ``inf`` when a net detects nothing at all.
    """

    value: float | None
    iou: float


@dataclass(frozen=True, slots=True)
class Loaded:
    """A weights file was read; only AlexeyAB's tells into how many layers."""

    file: str
    layers: int | None


@dataclass(frozen=True, slots=True)
class Saving:
    """The program begins to write a weights file."""

    path: str


@dataclass(frozen=True, slots=True)
class Seen:
    """Images that the loaded weights were trained on, in whole thousands."""

    images: int


@dataclass(frozen=True, slots=True)
class Complaint:
    """The program says that something is wrong, whatever its exit code will be."""

    text: str


Record = Step | TopK | LastAccuracy | ClassAP | Thresholds | Matches | MeanAP | Loaded | Saving | Seen | Complaint
