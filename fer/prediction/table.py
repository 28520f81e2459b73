"""What predict.py found, as a table: predictions.csv and predictions.jsonl."""

import csv
import json
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from fer.errors import InputError
from fer.prediction.embeddings import Embeddings
from fer.prediction.face import Face
from fer.system.files import new_folder, put_in_place

_COLUMNS = ("file", "frame", "time", "track", "x", "y", "width", "height", "score", "label", "confidence")


def columns(labels: Sequence[str]) -> tuple[str, ...]:
    """Return the columns of predictions.csv for these classes."""
    return (*_COLUMNS, *(f"p_{label}" for label in labels), "error")


def out_folder(keys: dict[str, Any], engine: str | None = None) -> tuple[Path, Path]:
    """Return the folder of a run's results, and the one that is not searched for sources: it, or all like it.

    Without ``keys["out"]`` it is a new one in predictions/, named after the network, its engine and the source.
    """
    if keys["out"]:
        out = Path(keys["out"])
        if (out / "predictions.csv").exists():
            print(f"{out}: the predictions of an earlier run are replaced")
        return out, out
    source = re.sub(r".*://([^/@]*@)?", "", keys["source"])
    words = "-".join(word for word in (Path(keys["ckpt"]).stem, engine, Path(source).stem or "_") if word)
    name = "".join(c if c.isprintable() and c not in '/\\:*?"<>|' else "_" for c in words)[:80].strip(". ")
    return new_folder(Path("predictions", name)), Path("predictions")


class Rows:
    """predictions.csv and predictions.jsonl with the same rows, written as the run goes on, named when it ends.

    ``labels`` are the classes of the columns p_NAME. With ``embed`` there is embeddings.npz too. Files with the names
    of an earlier run are replaced in one step at the end, also when the run is interrupted; after an InputError or a
    full disk they are left as they were.
    """

    def __init__(self, out: Path, labels: Sequence[str] = (), embed: bool = False) -> None:
        self._columns = columns(labels)
        self._paths = [out / "predictions.csv", out / "predictions.jsonl"]
        out.mkdir(parents=True, exist_ok=True)
        self._files: list[TextIO] = []
        self._npz = out / "embeddings.npz"
        self._embeddings: Embeddings | None = None
        try:
            for path in self._paths:
                # closed as the run ends
                file = open(f"{path}.tmp", "w", newline="", encoding="utf-8", errors="surrogateescape")  # noqa: SIM115
                self._files.append(file)
            if embed:
                self._embeddings = Embeddings(self._npz)
        except OSError:
            self._remove_unfinished()
            raise
        self._csv = csv.DictWriter(self._files[0], self._columns, restval="")
        self._csv.writeheader()
        self.rows = self.faces = self.named = self.failed = 0

    def __enter__(self) -> "Rows":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        keep = kind is None or not issubclass(kind, InputError | OSError)
        try:
            for file in self._files:
                file.close()
            if not keep:
                return
            embeddings = self._embeddings and self._embeddings.finish()
            for file, path in zip(self._files, self._paths, strict=True):
                put_in_place(Path(file.name), path)
            if embeddings:
                put_in_place(embeddings, self._npz)
            else:
                # those of an earlier run, whose rows are gone
                self._npz.unlink(missing_ok=True)
        finally:
            self._remove_unfinished()

    def _remove_unfinished(self) -> None:
        """Remove what a full disk or an error leaves of the files, and the folders that nothing came into."""
        for file in self._files:
            with suppress(OSError):
                file.close()
            Path(file.name).unlink(missing_ok=True)
        if self._embeddings:
            with suppress(OSError):
                self._embeddings.remove()
        out = self._paths[0].parent
        for folder in (out / "photos", out / "explain", out):
            with suppress(OSError):
                folder.rmdir()

    def write(self, embedding: np.ndarray | None = None, **row: Any) -> None:
        """Write one row; columns that are not given are empty in the csv and null in the JSON line."""
        if embedding is not None and self._embeddings:
            self._embeddings.add(self.rows, embedding)
        self.rows += 1
        self._csv.writerow(row)
        self._files[1].write(json.dumps({column: row.get(column) for column in self._columns}) + "\n")
        self.faces += "x" in row
        self.named += bool(row.get("label"))
        self.failed += "error" in row


def face_cells(face: Face) -> dict[str, Any]:
    """Return the columns of a face, its box to 0.1 pixels, and its embedding where it has one."""
    corners = (round(value, 1) for value in face.box)
    row: dict[str, Any] = dict(zip(("x", "y", "width", "height"), corners, strict=True))
    row |= {"label": face.label, "confidence": round(face.confidence, 4)}
    if face.score is not None:
        row["score"] = round(face.score, 4)
    if face.embedding is not None:
        row["embedding"] = face.embedding
    return row | {f"p_{name}": round(value, 6) for name, value in face.probabilities.items()}
