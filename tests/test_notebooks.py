"""The notebooks, run from the first cell to the last on the demo's drawn faces and net."""

import os
import re

import nbformat
import pytest
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

from tests.conftest import ROOT, copy_demo

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


class ThisPython(KernelSpecManager):
    """The interpreter that runs the tests, whatever kernels are installed for the user."""

    def get_kernel_spec(self, kernel_name):
        return KernelSpec(**get_kernel_dict())


@pytest.fixture(scope="module")
def made(demo, tmp_path_factory, run):
    """What the notebooks take from the environment, of a copy of the demo."""
    home = tmp_path_factory.mktemp("notebooks")
    copy_demo(demo, home)
    folder = home / "runs/demo/latest"
    ckpt = folder / "checkpoints/best.ckpt"
    run("evaluate.py", f"ckpt={ckpt}", "split=test", "ten_crop=false", "device=cpu", cwd=home)
    return {
        "FER_DATA": home / "data/sample-48-grey.h5",
        "FER_RUN": folder,
        "FER_REPORT": folder / "evaluate/best-sample-test",
        "FER_CKPT": ckpt,
        "FER_PHOTO": next((demo / "data/sample").rglob("*.jpg")),
        # whether a face is found in the drawing is not what is tested here
        "FER_FACES": "whole",
    }


def execute(path, environment, folder):
    notebook = nbformat.read(path, as_version=4)
    manager = AsyncKernelManager(kernel_spec_manager=ThisPython())
    client = NotebookClient(notebook, km=manager, timeout=120, resources={"metadata": {"path": str(folder)}})
    client.execute(env={**os.environ, **environment})
    return notebook


def pictures(notebook):
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return sum("image/png" in output.get("data", {}) for output in outputs)


def text(notebook):
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return "\n".join(output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in outputs)


def test_the_stored_notebooks_hold_their_outputs_and_nothing_of_the_machine():
    assert [path.stem for path in NOTEBOOKS] == ["01_data", "02_results", "03_predict", "04_own_data"]
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        nbformat.validate(notebook)
        for before, cell in zip([None, *notebook.cells], notebook.cells, strict=False):
            if cell.cell_type == "code":
                assert before.cell_type == "markdown", "each cell is explained in a sentence"
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
        assert pictures(notebook) >= 1 and not re.search(r"/(home|root|tmp|work|Users)/", text(notebook))
        outputs = [output for cell in cells for output in cell.outputs]
        assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]


@pytest.mark.slow
@pytest.mark.timeout(900)  # the demo is waited for
@pytest.mark.parametrize(("name", "shown"), [("01_data", 4), ("02_results", 3), ("03_predict", 2), ("04_own_data", 3)])
def test_every_cell_runs(made, tmp_path, name, shown):
    environment = {key: str(value) for key, value in made.items()} | {"FER_HOME": str(tmp_path / "own")}
    notebook = execute(ROOT / "notebooks" / f"{name}.ipynb", environment, tmp_path)
    assert pictures(notebook) == shown
    if name == "01_data":
        assert "drawn=True" in text(notebook)
        assert (made["FER_DATA"].with_name("sample-48-grey-look") / "index.html").is_file()
    if name == "02_results":
        assert "DRAWN SAMPLE DATA" in text(notebook)
    if name == "03_predict":
        assert "Face(box=(0.0, 0.0, " in text(notebook)
    if name == "04_own_data":
        assert "vgg9 on folder, test" in text(notebook)
    assert [path.name for path in tmp_path.iterdir()] == (["own"] if name == "04_own_data" else [])


def test_a_cell_that_raises_fails(tmp_path):
    path = tmp_path / "wrong.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")]), path)
    with pytest.raises(Exception, match="ZeroDivisionError"):
        execute(path, {}, tmp_path)
