"""The embeddings of the faces that predict.py found, as one .npz file."""

import shutil
import zipfile
from array import array
from pathlib import Path

import numpy as np


class Embeddings:
    """A file of ``embedding`` float32 (n, D) and ``row`` int64 (n,): the faces' rows in predictions.csv, from 0.

    What is added goes to a file of raw numbers beside it, so that a long video needs no memory.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._raw = Path(f"{path}.raw.tmp")
        self._file = open(self._raw, "wb")  # noqa: SIM115  closed by finish or remove
        self._rows, self._size = array("q"), 0

    def add(self, row: int, embedding: np.ndarray) -> None:
        """Add the embedding float32 (D,) of the face in a row."""
        self._file.write(embedding.astype("<f4").tobytes())
        self._rows.append(row)
        self._size = len(embedding)

    def finish(self) -> Path:
        """Write the file under a temporary name, and return that."""
        self._file.close()
        whole = Path(f"{self.path}.tmp")
        header = {"descr": "<f4", "fortran_order": False, "shape": (len(self._rows), self._size)}
        with zipfile.ZipFile(whole, "w") as archive:
            with archive.open("embedding.npy", "w", force_zip64=True) as file, open(self._raw, "rb") as raw:
                np.lib.format.write_array_header_1_0(file, header)
                shutil.copyfileobj(raw, file)
            with archive.open("row.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.array(self._rows, np.int64))
        return whole

    def remove(self) -> None:
        """Remove all that has a temporary name."""
        self._file.close()
        for path in (self._raw, Path(f"{self.path}.tmp")):
            path.unlink(missing_ok=True)
