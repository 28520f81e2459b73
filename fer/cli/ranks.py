"""Ranks that belong to one job: Lightning starts them by running the command line again."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from fer.cli.run_folder import left_if_filled
from fer.errors import InputError
from fer.system.distributed import started_ranks


@contextmanager
def one_job(command: list[str], conf: str, full_error: bool) -> Iterator[Path]:
    """Give the run folder of one Hydra job, and make what Lightning starts for it belong to this job alone.

    Lightning starts the other ranks by running ``sys.argv`` again. In a multirun that asks for the whole sweep, so for
    the time of the job it is replaced by ``command``, the program's name, and this job's own overrides, and Hydra's run
    folder by this job's folder. Afterwards the process group and the environment variables are put back, or the next
    job would think that it is a rank of this one.
    """
    config = cast(DictConfig, HydraConfig.get())  # which its annotation hides
    folder = Path(config.runtime.output_dir)
    with left_if_filled(folder):
        _refuse_parallel_launcher(config)
        _refuse_sweep_of_ranks(config)
        with _alone(command, conf, full_error, folder, config):
            yield folder


@contextmanager
def _alone(command: list[str], conf: str, full_error: bool, folder: Path, config: DictConfig) -> Iterator[None]:
    argv, environ = sys.argv, dict(os.environ)
    if not full_error:
        # set for Hydra alone; a rank that inherits it would answer with tracebacks
        os.environ.pop("HYDRA_FULL_ERROR", None)
    # the flags first: Lightning adds overrides at the end, and those before and after a flag would be two lists
    sys.argv = [*command, *_config_flags(config, conf), *config.overrides.task]
    whole = cast(DictConfig, HydraConfig.instance().cfg)
    with read_write(whole.hydra), open_dict(whole.hydra):
        whole.hydra.run.dir = str(folder)
    try:
        yield
    finally:
        torch = sys.modules.get("torch")
        if torch and torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        sys.argv = argv
        os.environ.clear()
        os.environ.update(environ)


def _config_flags(config: DictConfig, conf: str) -> list[str]:
    """Return the flags that chose the config's name and folders."""
    flags = ["--config-name", config.job.config_name]
    for source in config.runtime.config_sources:
        if source.provider == "command-line":
            flags += ["--config-dir", source.path]
        elif source.provider == "main" and source.path != conf:
            flags += ["--config-path", source.path]
    return flags


def _refuse_parallel_launcher(config: DictConfig) -> None:
    """Refuse launchers that run jobs as children which cannot start ranks of their own."""
    launcher = str(config.launcher.get("_target_", ""))
    task = OmegaConf.from_dotlist([o for o in config.overrides.task if o.startswith("trainer.devices=")])
    devices = OmegaConf.select(task, "trainer.devices")
    if devices not in (None, 1, "1") and ("joblib" in launcher.lower() or "LocalLauncher" in launcher):
        raise InputError(
            f"trainer.devices={devices} with hydra/launcher={config.runtime.choices.get('hydra/launcher')}: "
            "its jobs cannot start further ranks; use hydra/launcher=basic"
        )


def _refuse_sweep_of_ranks(config: DictConfig) -> None:
    """Refuse a multirun that torchrun or srun started once for each rank; a cluster's own launcher starts jobs."""
    if config.mode == RunMode.MULTIRUN and started_ranks() > 1 and "BasicLauncher" in config.launcher._target_:
        raise InputError(
            f"a sweep with -m, started {started_ranks()} times: give torchrun or srun one job each, "
            "or on SLURM hydra/launcher=submitit_slurm"
        )
