"""Between the shell and the experiment: Hydra's start, errors in one line, and ranks that stay with their job."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra import compose, initialize_config_dir
from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from fer.config.plain import closest
from fer.errors import InputError, Interrupted, RankLost
from fer.system.distributed import end_with_parent, is_first_rank, local_rank, started_ranks
from fer.system.files import is_full

CONF = Path(__file__).resolve().parents[2] / "conf"


def launch(job: Callable[[DictConfig, Path], Any], config_name: str) -> None:
    """Compose ``conf/<config_name>.yaml`` with the command line and run ``job(cfg, run_folder)``.

    What the user got wrong is said in one line on stderr, exit code 2; an interrupt ends with 130, SIGTERM with 143,
    a lost rank with 1. With ``HYDRA_FULL_ERROR=1`` every error comes with its traceback instead.
    """
    full_error = os.environ.get("HYDRA_FULL_ERROR") == "1"

    def task(cfg: DictConfig) -> Any:
        try:
            with _one_job(full_error) as run_folder:
                return job(cfg, run_folder)
        except (InputError, HydraException, OmegaConfBaseException) as error:
            if full_error:
                raise
            # left to Hydra it would come with a second line that repeats the overrides
            _fail(error, config_name)
        except Interrupted as stopped:
            if not is_first_rank():
                # Lightning would kill the first rank for another that ends with an error
                sys.exit(0)
            print(stopped, file=sys.stderr)
            sys.exit(128 + stopped.signal)
        except OSError as error:
            if full_error or not is_full(error):
                raise
            name = f" {error.filename}" if error.filename else " a file"
            _fail(
                InputError(
                    f"{error.strerror}: could not write{name}; free space and give the command again, or for "
                    "a training run resume=CHECKPOINT with it"
                ),
                config_name,
            )
        except RankLost as lost:
            if full_error:
                raise
            # every rank that is left, because the lost one may be the first
            print(f"error: {lost}", file=sys.stderr)
            sys.exit(1)

    if "LOCAL_RANK" in os.environ:
        end_with_parent()
    if local_rank():
        # the first rank's run folder has the config; without these each rank would make one, named by its own clock
        sys.argv += ["hydra.output_subdir=null"]
        if not any(argument.startswith("hydra.run.dir=") for argument in sys.argv):
            sys.argv += ["hydra.run.dir=."]
    sys.argv = [sys.argv[0], *map(literal, sys.argv[1:])]
    # with it Hydra raises its errors instead of printing several lines and exiting
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(task)()
    except (InputError, HydraException, OmegaConfBaseException) as error:
        if full_error:
            raise
        _fail(error, config_name)
    except KeyboardInterrupt:
        sys.exit(130)


#: Keys whose values are names, never numbers.
_NAMES = ("source", "ckpt", "out")


def literal(argument: str) -> str:
    """Return a command line's ``key=value``, its value quoted for Hydra where it is a name that Hydra would not take.

    To Hydra's grammar `2024_01` is a number, `a,b.jpg` a sweep, and `Müller.jpg`, `IMG (1).jpg` and `rtsp://host/a?b=c`
    are errors. What begins with a quote, and a list or dict that is not closed, are left to it.
    """
    key, _, value = argument.partition("=")
    if argument.startswith("-") or not value or value[0] in "'\"":
        return argument
    there = os.path.lexists(value)
    try:
        read = OverridesParser.create().parse_override(argument).value()
    except HydraException:
        name = value[0] not in "[{" or there
    else:
        number = key in _NAMES and isinstance(read, int | float)
        name = str(read) != value and (there or number)
    return f"{key}={QuotedString(value, Quote.single).with_quotes()}" if name else argument


def _fail(error: Exception, config_name: str) -> None:
    print(f"error: {explain(error, config_name, sys.argv[1:])}", file=sys.stderr)
    sys.exit(2)


@contextmanager
def _one_job(full_error: bool) -> Iterator[Path]:
    """Give the run folder of one Hydra job, and make what Lightning starts for it belong to this job alone.

    Lightning starts the other ranks by running ``sys.argv`` again. In a multirun that asks for the whole sweep, so for
    the time of the job it is replaced by this job's own overrides, and Hydra's run folder by this job's folder.
    Afterwards the process group and the environment variables are put back, or the next job would think that it is a
    rank of this one.
    """
    config = HydraConfig.get()
    folder = Path(config.runtime.output_dir)
    _refuse_parallel_launcher(config)
    _refuse_sweep_of_ranks(config)
    flags, _ = get_args_parser().parse_known_args()
    argv, environ = sys.argv, dict(os.environ)
    if not full_error:
        # set for Hydra alone; a rank that inherits it would answer with tracebacks
        os.environ.pop("HYDRA_FULL_ERROR", None)
    sys.argv = [argv[0], *config.overrides.task]
    for flag in ("config_name", "config_path", "config_dir"):
        if getattr(flags, flag):
            sys.argv += [f"--{flag.replace('_', '-')}", getattr(flags, flag)]
    whole = HydraConfig.instance().cfg
    with read_write(whole.hydra), open_dict(whole.hydra):
        whole.hydra.run.dir = str(folder)
    try:
        yield folder
    finally:
        torch = sys.modules.get("torch")
        if torch and torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        sys.argv = argv
        os.environ.clear()
        os.environ.update(environ)


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


def explain(error: Exception, config_name: str, argv: list[str]) -> str:
    """Return one line for an error of ours, Hydra's or OmegaConf's, with the valid keys where one is wrong."""
    text = str(error)
    if text.startswith("Could not override '"):
        key = text.split("'")[1]
        others = [a for a in argv if not a.startswith("-") and a.split("=")[0].lstrip("+~") != key]
        return _unknown_key(key, config_name, others)
    # Hydra lists choices one a line; one line is enough to read and to search for
    return " ".join(text.replace("\t", " ").split())


def _unknown_key(key: str, config_name: str, others: list[str]) -> str:
    parent = key.rpartition(".")[0]
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = compose(config_name, others)
    except (HydraException, OmegaConfBaseException):
        return f"there is no key {key}"
    while parent and OmegaConf.select(config, parent) is None:
        parent = parent.rpartition(".")[0]
    node = OmegaConf.select(config, parent) if parent else config
    valid = sorted(map(str, node.keys())) if isinstance(node, DictConfig) else []
    if not valid:
        return f"there is no key {key}: {parent} is a value, not a group"
    hint = closest(key.rpartition(".")[2], valid)
    return f"there is no key {key}{hint}; valid in {parent or config_name}: {', '.join(valid)}"
