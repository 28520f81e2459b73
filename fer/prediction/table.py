"""What predict.py found, as a table: predictions.csv and predictions.jsonl."""

import csv
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fer.errors import InputError
from fer.prediction.face import Face
from fer.system.files import is_full, put_in_place

_COLUMNS = ("file", "frame", "time", "track", "x", "y", "width", "height", "score", "label", "confidence")


class Rows:
    """predictions.csv and predictions.jsonl with the same rows, written as the run goes on, named when it ends.

    ``labels`` are the classes of the columns p_NAME. Files with the names of an earlier run are replaced in one step
    at the end, also when the run is interrupted; after an InputError they are left as they were.

    Raises:
        InputError: the folder ``out`` cannot be made or written in.
    """

    def __init__(self, out: Path, labels: Sequence[str] = ()) -> None:
        self._columns = (*_COLUMNS, *(f"p_{label}" for label in labels), "error")
        self._paths = [out / "predictions.csv", out / "predictions.jsonl"]
        try:
            out.mkdir(parents=True, exist_ok=True)
            self._files = [
                open(f"{path}.tmp", "w", newline="", encoding="utf-8", errors="surrogateescape") for path in self._paths
            ]
        except OSError as error:
            if is_full(error):
                raise
            raise InputError(f"out={out}: cannot be written in ({error.strerror}); choose another folder") from error
        self._csv = csv.DictWriter(self._files[0], self._columns, restval="")
        self._csv.writeheader()
        self.faces = self.named = self.failed = 0

    def __enter__(self) -> "Rows":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for file, path in zip(self._files, self._paths, strict=True):
            file.close()
            if kind is not None and issubclass(kind, InputError):
                os.unlink(file.name)
            else:
                put_in_place(Path(file.name), path)

    def write(self, **row: Any) -> None:
        """Write one row; columns that are not given are empty in the csv and null in the JSON line."""
        self._csv.writerow(row)
        self._files[1].write(json.dumps({column: row.get(column) for column in self._columns}) + "\n")
        self.faces += "x" in row
        self.named += bool(row.get("label"))
        self.failed += "error" in row


def face_cells(face: Face) -> dict[str, Any]:
    """Return the columns of a face: its box to 0.1 pixels, label, confidence, score and probabilities."""
    corners = (round(value, 1) for value in face.box)
    row: dict[str, Any] = dict(zip(("x", "y", "width", "height"), corners, strict=True))
    row |= {"label": face.label, "confidence": round(face.confidence, 4)}
    if face.score is not None:
        row["score"] = round(face.score, 4)
    return row | {f"p_{name}": round(value, 6) for name, value in face.probabilities.items()}
