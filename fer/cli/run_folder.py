"""The folder that Hydra makes for a run: what was there before it, and what a run that fails leaves of it."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, flag_override, open_dict
from omegaconf.errors import OmegaConfBaseException

from fer.cli.errors import unwritable
from fer.errors import InputError
from fer.system.addresses import without_password
from fer.system.files import is_of_disk

#: What a run was started with, in its folder.
RECORD = ".hydra"
#: What `fer.runs.record` writes of a run.
RUN = "run.json"
#: What Hydra's sweeper writes into the folder of a sweep before its first job.
_SWEEP = "multirun.yaml"
#: What the name of a run comes from where none is given, as conf/train.yaml's ``run_name`` makes it.
_NAMING = frozenset(f"{group}{key}" for group in ("data", "model", "darknet") for key in ("", ".name", "._target_"))


@dataclass(frozen=True, slots=True)
class _Start:
    """What there was when Hydra started: of ``root``, the folder of the run or the sweep, and of the sweep's jobs."""

    root: Path
    missing: tuple[Path, ...]
    inside: frozenset[Path]
    swept: frozenset[str] = frozenset()
    jobs: int | None = None

    def is_new(self, folder: Path) -> bool:
        """Say whether the folder was not there."""
        if folder in self.missing:
            return True
        below = folder.relative_to(self.root).parts if folder.is_relative_to(self.root) else ()
        return bool(below) and self.root / below[0] not in self.inside


_start: _Start | None = None


def forget() -> None:
    """Know nothing of the run before; a process that runs the tests has many."""
    global _start
    _start = None


class Watch(Callback):
    """Hydra's hook of conf/train.yaml, called before Hydra makes a folder."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        # a folder named by what Hydra knows later, ${hydra:...}, stays whatever happens
        with suppress(OmegaConfBaseException):
            _note(Path(config.hydra.run.dir))

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        swept, jobs = _jobs(config)
        with suppress(OmegaConfBaseException):
            _keep_together(config, swept)
            _note(Path(config.hydra.sweep.dir), swept, jobs)


def _keep_together(config: DictConfig, swept: frozenset[str]) -> None:
    """Give all jobs of a sweep the folder that was found for it; each job would find one by the name of its own run."""
    given = config.hydra.overrides.hydra
    if any(word.startswith("hydra.sweep.dir=") for word in given):
        return
    made = OmegaConf.is_interpolation(config, "name")
    if swept & {"name", "experiment"} or (made and swept & _NAMING):
        with open_dict(config):
            config.name = "sweep"
    folder = QuotedString(str(config.hydra.sweep.dir), Quote.single).with_quotes()
    with flag_override(config, ["struct", "readonly"], False):
        given.append(f"hydra.sweep.dir={folder}")


def _note(root: Path, swept: frozenset[str] = frozenset(), jobs: int | None = None) -> None:
    global _start
    root = Path(os.path.abspath(root))
    missing = tuple(folder for folder in (root, *root.parents) if not folder.exists())
    inside = frozenset(root.iterdir()) if root.is_dir() else frozenset()
    _start = _Start(root, missing, inside, swept, jobs)


def _jobs(config: DictConfig) -> tuple[frozenset[str], int | None]:
    """Return the keys that a sweep varies, and the number of its jobs where Hydra's own sweeper makes them."""
    words = [*(f"{k}={v}" for k, v in (config.hydra.sweeper.get("params") or {}).items()), *config.hydra.overrides.task]
    try:
        overrides = OverridesParser.create(GlobalHydra.instance().config_loader()).parse_overrides(words)
        swept = frozenset(each.get_key_element() for each in overrides if each.is_sweep_override())
        if not config.hydra.sweeper._target_.endswith(".BasicSweeper"):
            return swept, None
        return swept, sum(map(len, BasicSweeper.split_arguments(overrides, None)))
    except HydraException:
        # the sweeper says it better
        return frozenset(), None


def place_in_sweep() -> str:
    """Return what to add to the line on why a job of a sweep failed: which one it is, how many were not started."""
    config = cast(DictConfig, HydraConfig.get())
    if _start is None or not _start.swept or not config.launcher._target_.endswith(".BasicLauncher"):
        return ""
    number = int(config.job.num)
    shown = " ".join(word for word in config.overrides.task if word.split("=")[0] in _start.swept)
    rest = ", the jobs after it were not started"
    if _start.jobs is not None:
        left = _start.jobs - number - 1
        rest = f", {left} of {_start.jobs} jobs were not started" if left else ", the last one"
    return f"; this was job {number} of the sweep ({shown}){rest}"


@contextmanager
def left_if_filled(folder: Path) -> Iterator[None]:
    """Remove the empty ``folder`` where the block raises and Hydra made it, and the empty ones above that it made."""
    try:
        yield
    except BaseException:
        _remove_empty(Path(os.path.abspath(folder)))
        raise


def remove_empty_sweep() -> None:
    """Remove what Hydra wrote, and the folder that it made, for a sweep where no job has left anything in it."""
    if _start is None or _start.inside or not _start.root.is_dir():
        return
    if [path.name for path in _start.root.iterdir()] == [_SWEEP]:
        (_start.root / _SWEEP).unlink()
    _remove_empty(_start.root)


def _remove_empty(folder: Path) -> None:
    with suppress(OSError):
        while _start and _start.is_new(folder):
            folder.rmdir()
            folder = folder.parent


@contextmanager
def recorded(cfg: DictConfig, folder: Path) -> Iterator[None]:
    """Write what the run is started with to ``folder``, which is this run's alone, as Hydra would before it is.

    Where the block raises before it has written anything else, the record is removed.

    Raises:
        InputError: there is no room, or no file is taken; it names what is kept to go on from.
    """
    record, whole = folder / RECORD, cast(DictConfig, HydraConfig.instance().cfg)
    earlier = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    try:
        record.mkdir(parents=True, exist_ok=True)
        given = {"config": cfg, "hydra": whole, "overrides": whole.hydra.overrides.task}
        for name, part in given.items():
            (record / f"{name}.yaml").write_text(without_password(OmegaConf.to_yaml(part)), "utf-8")
        yield
    except BaseException as error:
        made = {path.name for path in folder.iterdir()} - earlier if folder.is_dir() else set()
        # the table at a sweep's end names the job that failed beside those before it
        config = cast(DictConfig, HydraConfig.get())
        unneeded = {RECORD} if config.mode == RunMode.MULTIRUN and int(config.job.num) else {RECORD, RUN}
        if made <= unneeded and not earlier & {RECORD, RUN}:
            shutil.rmtree(record, ignore_errors=True)
            (folder / RUN).unlink(missing_ok=True)
        elif is_of_disk(error):
            line = unwritable(error) if isinstance(error, OSError) else error
            raise InputError(f"{line}; the run folder {folder} is kept{_resume(folder)}") from error
        raise


def _resume(folder: Path) -> str:
    """Return how to go on from what a run has saved, nothing where it has not."""
    last, backup = folder / "checkpoints/last.ckpt", folder / "backup"
    if last.is_file():
        return f"; go on with the same command and resume={last}"
    if backup.is_dir() and any(backup.iterdir()):
        return f"; go on with the same command and resume={folder}"
    return ""
