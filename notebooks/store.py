"""Run the notebooks on what ``make demo`` left, and store them with their outputs: all faces in them are drawn.

    python notebooks/store.py      # or: make notebooks

Progress bars are stored as their last state, and folders of this machine under short names.
"""

import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

HERE = Path(__file__).resolve().parent


def store(path: Path) -> None:
    """Execute a notebook in its folder and write it back, its outputs tidied.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raised.
    """
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder, "own_data").resolve()
        client = NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(HERE)}})
        client.execute(env={**os.environ, "FER_HOME": str(home)})
    for cell in (cell for cell in notebook.cells if cell.cell_type == "code"):
        # when it ran is of no interest, and differs each time
        cell.metadata.pop("execution", None)
        # stderr has progress bars
        cell.outputs = joined(output for output in cell.outputs if output.get("name") != "stderr")
        for output in cell.outputs:
            if output.output_type == "stream":
                output.text = tidy(output.text, home)
            for kind in ("text/plain", "text/html"):
                if kind in output.get("data", {}):
                    output.data[kind] = tidy(output.data[kind], home)
    nbformat.write(notebook, path)
    print(f"{path.name}: {path.stat().st_size / 1000:,.0f} kB")


def joined(outputs: Iterable[NotebookNode]) -> list[NotebookNode]:
    """Return outputs with neighbouring pieces of stdout as one: a bar of a command started by ! comes in many."""
    whole: list[NotebookNode] = []
    for output in outputs:
        if output.output_type == "stream" and whole and whole[-1].output_type == "stream":
            whole[-1].text += output.text
        else:
            whole.append(output)
    return whole


def tidy(text: str, home: Path) -> str:
    """Return a text with the last state of each progress bar, and without the folders of this machine."""
    lines = [line.rstrip().rpartition("\r")[2].rstrip() for line in text.split("\n")]
    plain = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", "\n".join(lines))
    return plain.replace(str(home), home.name).replace(f"{HERE.parent}{os.sep}", "")


if __name__ == "__main__":
    for found in sorted(HERE.glob("*.ipynb")):
        store(found)
