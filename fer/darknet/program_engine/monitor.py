"""The monitor of a run of the darknet program, which hears of everything through the lines that the program prints."""

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from fer.darknet.formats.cfg import Section
from fer.darknet.formats.records import ClassAP, MeanAP, Saving, Step
from fer.darknet.formats.weights import whole_layers
from fer.darknet.program_engine.log import parse_line
from fer.darknet.runs.monitor import Monitor
from fer.errors import InputError

#: Seconds after which a file that the program said it saves must be whole. It comes sooner, but the line is on another
#: stream than the iterations, of which several from before the save may be read after it.
_WRITTEN = 10.0


class ProgramMonitor(Monitor):
    """A `Monitor` that is called with each line of the program.

    Raises:
        InputError: from a call, also when a weights file was not written whole; this ends the run.
    """

    def __init__(
        self, out: Path, sections: Sequence[Section], max_batches: int, start: int, metric: str, bar: bool = True,
        config: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(out, sections, max_batches, start, metric, bar, config)
        self._out, self._sections, self._steps = out, sections, 0
        #: To each file that is being saved the step from which on it is looked at, and when it must be whole.
        self._saving: dict[Path, tuple[int, float]] = {}
        self._class_aps: list[ClassAP] = []

    def __call__(self, line: str) -> None:
        record = parse_line(line)
        if isinstance(record, Step):
            self.step(record)
        elif isinstance(record, Saving):
            # the first iteration after this line may be from before the save
            self._saving.setdefault(self._out / record.path, (self._steps + 1, time.monotonic() + _WRITTEN))
        elif isinstance(record, ClassAP):
            self._class_aps.append(record)
        elif isinstance(record, MeanAP):
            # the program prints it twice; the classes belong to the first
            if record.value is not None and self._class_aps:
                values = {self._metric: record.value} | {f"val/ap/{ap.name}": ap.ap for ap in self._class_aps}
                self.score(self.iteration, values)
            self._class_aps = []

    def step(self, step: Step, more: Mapping[str, float] = MappingProxyType({})) -> None:
        """Take an iteration, and see whether what the program said it saves is there."""
        self._require_saved()
        self._steps += 1
        super().step(step, more)

    def _require_saved(self) -> None:
        for path, (step, due) in list(self._saving.items()):
            if self._steps < step:
                continue
            try:
                whole_layers(path, self._sections)
            except (InputError, OSError) as error:
                if time.monotonic() < due:
                    continue
                free = shutil.disk_usage(self._out).free >> 20
                raise InputError(
                    f"{path} was not written whole ({free:,} MiB free there): make room and go on with "
                    f"resume={self._out}"
                ) from error
            self.last_saved = path
            del self._saving[path]
