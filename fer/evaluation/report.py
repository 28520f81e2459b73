"""What an evaluation leaves: the files of a report.

Probabilities are (N, C), rows summing to 1; labels are integers (N,) in 0..C-1.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from fer.evaluation.figures import confusion_figure, risk_coverage_figure
from fer.evaluation.metrics import confusion_counts
from fer.evaluation.taxonomy import short_common
from fer.evaluation.text import CROP_NAMES
from fer.system.files import write_files


@dataclass(frozen=True, slots=True)
class Report:
    """A classifier's scores on a split and what they are worth.

    ``scores`` are those of `summarize` by way of cropping, "plain" and perhaps "ten_crop"; ``headline`` is the one that
    counts. ``checkpoint`` is a list for an ensemble; ``size`` is the side of what the network sees in pixels, None
    where the networks of an ensemble differ, ``scales`` the sizes of the ten crops, None for that one. ``notes`` are
    sentences; ``without_duplicates`` is the headline again without faces that were trained on, where there are any.
    ``classes`` and ``contempt`` are the keys of that name, ``common`` the facts of `taxonomy.Common`, else None.
    """

    scores: dict[str, dict[str, Any]]
    headline: str
    split: str
    data: str
    file: str
    checkpoint: str | list[str]
    model: str
    scales: list[int] | None
    size: int | None
    trained_on: str
    drawn: bool
    notes: list[str]
    without_duplicates: dict[str, Any] | None = None
    classes: str | None = None
    contempt: str | None = None
    common: dict[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """Return what report.json holds, as `save_report` and `format_report` take it."""
        content = asdict(self)
        scores, without = content.pop("scores"), content.pop("without_duplicates")
        return scores | content | ({} if without is None else {"without_duplicates": without})


def report_folder(folder: Path, **made_of: Any) -> Path:
    """Return ``folder``, or FOLDER-2, FOLDER-3, ...: the first that holds no report, or one of the same.

    ``made_of`` are keys of report.json and their values: what must be equal for a report to be replaced.
    """
    for number in count(1):
        free = folder if number == 1 else folder.with_name(f"{folder.name}-{number}")
        try:
            old = json.loads((free / "report.json").read_text("utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            break
        except (OSError, ValueError):
            # whatever it is, it is not one of these
            continue
        if isinstance(old, dict) and all(old.get(key) == value for key, value in made_of.items()):
            break
    if free != folder:
        print(f"{folder} holds another report and stays as it is: this one goes to {free}")
    return free


def save_report(
    folder: Path,
    report: dict[str, Any],
    probabilities: np.ndarray,
    labels: np.ndarray,
    paths: Sequence[str],
    sources: Sequence[str],
    class_names: Sequence[str],
    own_labels: Sequence[str] | None = None,
    tables: Mapping[str, pd.DataFrame] | None = None,
) -> dict[str, Path]:
    """Write report.json, its pictures and its tables, and return name -> path.

    The pictures are confusion.png and risk_coverage.png, the tables confusion.csv, per_class.csv and predictions.csv.

    ``report`` is plain data: "plain" and, where made, "ten_crop" from ``summarize``; "headline" names the one that the
    pictures and tables show and whose probabilities are given here; split, data, checkpoint, model (strings); drawn
    (bool); notes (sentences); optionally "without_duplicates", the headline way again on fewer rows, and "common" (see
    `taxonomy.Common`). Then ``own_labels`` are the rows' labels as the data have them, predictions.csv's own_label.
    ``tables`` are further csv files by name. Each file is written to a temporary name and renamed, report.json last.

    Raises:
        ValueError: the probabilities and labels are not those of the headline, or the rows differ in number.
        InputError: the folder cannot be made or written in.
    """
    headline = report[report["headline"]]
    probabilities, labels = np.asarray(probabilities), np.asarray(labels)
    counts = confusion_counts(probabilities, labels)
    if counts.tolist() != headline["confusion"]:
        raise ValueError(f"the probabilities are not those that report[{report['headline']!r}] was made from")
    names = np.asarray(class_names, dtype=object)
    predicted = probabilities.argmax(axis=1)
    rows = {"source": list(sources), "path": list(paths), "label": names[labels], "prediction": names[predicted]}
    # Text as Python objects: pyarrow, which pandas uses where it finds it, refuses names that are not UTF-8.
    if own_labels is not None:
        rows["own_label"] = list(own_labels)
    predictions = pd.DataFrame(rows, dtype=object).assign(correct=(predicted == labels).astype(int))
    for index, name in enumerate(class_names):
        predictions[f"p_{name}"] = probabilities[:, index]
    confusion = pd.DataFrame(counts, index=pd.Index(names, name="true \\ predicted"), columns=names)
    figure = confusion_figure(counts, class_names, picture_title(report))
    per_class = pd.DataFrame(headline["per_class"])
    curve = risk_coverage_figure(headline["risk_coverage"], picture_title(report))
    writers: dict[str, Callable[[Path], Any]] = {
        name: partial(_write_csv, table, index=False) for name, table in (tables or {}).items()
    }
    writers |= {
        "predictions.csv": lambda path: _write_csv(predictions, path, index=False, float_format="%.6g"),
        "per_class.csv": lambda path: _write_csv(per_class, path, index=False),
        "confusion.csv": lambda path: _write_csv(confusion, path),
        "confusion.png": lambda path: figure.savefig(path, dpi=120, format="png", bbox_inches="tight"),
        "risk_coverage.png": lambda path: curve.savefig(path, dpi=120, format="png"),
        "report.json": lambda path: path.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n", "utf-8"),
    }
    return write_files(folder, writers)


def picture_title(report: dict[str, Any]) -> str:
    """Return what stands over the confusion matrix of a report: data, score, and what was not scored."""
    headline = report[report["headline"]]
    data = f"{report['data']} (drawn sample data)" if report["drawn"] else report["data"]
    score = f"accuracy {headline['accuracy']:.2%} of {headline['n']:,} images, {CROP_NAMES[report['headline']]}"
    common = f"; {short_common(report['common'])}" if report.get("common") else ""
    return f"{data}, {report['split']} split: {score}{common}"


def _write_csv(table: pd.DataFrame, path: Path, index: bool = True, float_format: str | None = None) -> None:
    # A photo's name need not be UTF-8; surrogateescape writes back the bytes that the file system gave.
    table.to_csv(
        path, index=index, float_format=float_format, lineterminator="\n", encoding="utf-8", errors="surrogateescape"
    )
