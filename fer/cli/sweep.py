"""The end of a sweep: its jobs as a table."""

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from fer.runs.table import compare_runs
from fer.system.addresses import without_password

#: Name of the table in the folder of a sweep.
TABLE = "sweep.csv"

_folders: list[Path] = []


class Watch(Callback):
    """Hydra's callback that remembers the folder of a sweep, also of one whose jobs are other processes."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        _folders.append(Path(config.hydra.sweep.dir))


def print_table() -> None:
    """Print the table of the sweep that has ended, if there was one, and write it into its folder."""
    while _folders:
        folder = _folders.pop()
        hide_passwords(folder)
        table = compare_runs([folder], folder)
        if not table.rows:
            # an error before the first job
            return
        table.write_csv(folder / TABLE)
        print(f"\n{table}\ntable: {folder / TABLE}")


def hide_passwords(folder: Path) -> None:
    """Take the names and passwords in addresses out of what Hydra has written in a folder."""
    for path in folder.glob("*.yaml"):
        text = path.read_text("utf-8")
        if (hidden := without_password(text)) != text:
            path.write_text(hidden, "utf-8")
