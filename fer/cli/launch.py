"""Between the shell and a command: Hydra's start, and every way in which it can end."""

import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fer.cli.arguments import SEVERAL, check_choices, check_chosen, literal, options_first
from fer.cli.errors import (
    end_interrupted,
    ends_quietly,
    fail,
    fail_for_words,
    file_being_read,
    not_composed,
    unwritable,
)
from fer.cli.help import choices, keys
from fer.cli.ranks import one_job
from fer.cli.run_folder import forget, place_in_sweep, remove_empty_sweep
from fer.errors import InputError, Interrupted, RankLost, printable
from fer.system.command import command
from fer.system.distributed import end_with_parent, is_first_rank, local_rank
from fer.system.files import is_unwritable
from fer.system.signals import came
from fer.targets import trusting

_INSTALLED = Path(__file__).resolve().parents[1] / "conf"
#: The folder of the configs: in the wheel a part of the package, in a checkout beside it.
CONF = _INSTALLED if _INSTALLED.is_dir() else _INSTALLED.parents[1] / "conf"

# in the texts of --help: how the reader of this help started it, and what it lists
OmegaConf.register_new_resolver("command", command, replace=True)
OmegaConf.register_new_resolver("choices", choices, replace=True)
OmegaConf.register_new_resolver("keys", keys, replace=True)


@ends_quietly
def launch(job: Callable[[DictConfig, Path], Any], config_name: str, words: Sequence[str] = ()) -> None:
    """Compose ``conf/<config_name>.yaml`` with the command line and run ``job(cfg, run_folder)``.

    ``words`` are those of the command line that chose the job, such as ("train",) in ``fer train``. What the user got
    wrong is said in one line on stderr, exit code 2; an interrupt ends with 130, SIGTERM with 143, a lost rank with 1.
    With ``HYDRA_FULL_ERROR=1`` every error comes with its traceback instead.
    """
    full_error = os.environ.get("HYDRA_FULL_ERROR") == "1"
    program, arguments = sys.argv[0], sys.argv[1 + len(words) :]

    several = (*SEVERAL, "data") if config_name == "evaluate" else SEVERAL
    composing = True

    def task(cfg: DictConfig) -> Any:
        nonlocal composing
        composing = False
        if came():
            # what was being imported has swallowed it
            raise KeyboardInterrupt
        try:
            with one_job([program, *words], str(CONF), full_error) as run_folder, trusting(_trusted(cfg)):
                check_chosen(cfg, HydraConfig.get(), CONF, several)
                result = job(cfg, run_folder)
            # the next job of a sweep; an error of this one is none of composing
            composing = True
            return result
        except (InputError, HydraException, OmegaConfBaseException) as error:
            if full_error:
                raise
            # left to Hydra it would come with a second line that repeats the overrides
            fail(error, str(CONF), config_name, arguments, place_in_sweep())
        except Interrupted as stopped:
            if not is_first_rank():
                # Lightning would kill the first rank for another that ends with an error
                sys.exit(0)
            print(printable(f"{stopped}{place_in_sweep()}"), file=sys.stderr)
            sys.exit(128 + stopped.signal)
        except OSError as error:
            if full_error or not is_unwritable(error):
                raise
            fail(unwritable(error), str(CONF), config_name, arguments, place_in_sweep())
        except SystemExit as left:
            if came():
                # Lightning ends with 1 before a training has begun
                end_interrupted()
            # a part of the user's may leave; what it cut off must not look as if it had come to its end
            if full_error or left.code not in (None, 0):
                raise
            fail(_left_early(left), str(CONF), config_name, arguments, place_in_sweep())
        except RankLost as lost:
            if full_error:
                raise
            # every rank that is left, because the lost one may be the first
            print(printable(f"error: {lost}{place_in_sweep()}"), file=sys.stderr)
            sys.exit(1)

    if os.getcwd() not in sys.path:
        # classes that a config names may be the user's own; last, so that no file there stands for a package's
        sys.path.append(os.getcwd())
    if "LOCAL_RANK" in os.environ:
        end_with_parent()
    if local_rank():
        # the first rank's run folder has the config; without these each rank would make one, named by its own clock
        arguments = [*arguments, "hydra.output_subdir=null"]
        if not any(argument.startswith("hydra.run.dir=") for argument in arguments):
            arguments = [*arguments, "hydra.run.dir=."]
    # Hydra's handler would print that the fonts were listed, which happens once on each machine
    logging.getLogger("matplotlib.font_manager").setLevel(logging.WARNING)
    fail_for_words(arguments, str(CONF), config_name)
    # with it Hydra raises its errors instead of printing several lines and exiting
    os.environ["HYDRA_FULL_ERROR"] = "1"
    threading.excepthook, before = _of_a_thread, threading.excepthook
    forget()
    try:
        arguments = [literal(argument) for argument in options_first(arguments)]
        check_choices(arguments, CONF, several)
        sys.argv = [program, *arguments]
        hydra.main(version_base="1.3", config_path=str(CONF), config_name=config_name)(task)()
    except (InputError, HydraException, OmegaConfBaseException) as error:
        if full_error:
            raise
        fail(error, str(CONF), config_name, arguments)
    except KeyboardInterrupt:
        end_interrupted()
    except Exception as error:
        if came():
            end_interrupted()
        if full_error or isinstance(error, BrokenPipeError):
            raise
        if isinstance(error, OSError) and (is_unwritable(error) or composing and not file_being_read(error)):
            # Hydra makes the run folder
            fail(unwritable(error), str(CONF), config_name, arguments)
        if not composing:
            raise
        fail(not_composed(error), str(CONF), config_name, arguments)
    finally:
        remove_empty_sweep()
        threading.excepthook = before


def _trusted(cfg: DictConfig) -> Any:
    trust = OmegaConf.select(cfg, "trust")
    if isinstance(trust, str):
        raise InputError(f"trust={trust}: not a list: give trust=[{trust}]")
    return OmegaConf.to_container(trust) if OmegaConf.is_config(trust) else trust or ()


def _left_early(left: SystemExit) -> InputError:
    """Return what to say where code that a config names ended the program as if all were done."""
    frames = [frame for frame in traceback.extract_tb(left.__traceback__) if frame.filename != "<frozen _sitebuiltins>"]
    place = f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else "a part"
    return InputError(f"{place}: ended the program by sys.exit() before it was done; let it raise an error instead")


def _of_a_thread(arguments: threading.ExceptHookArgs) -> None:
    """Keep quiet of a file that a thread can't write, TensorBoard's log above all: the next to write says it."""
    if not isinstance(arguments.exc_value, OSError) or not is_unwritable(arguments.exc_value):
        threading.__excepthook__(arguments)
