"""Errors in one line: what the user got wrong, in Hydra's words or ours, with the valid keys where one is wrong."""

import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import NoReturn, ParamSpec

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fer.config.plain import closest
from fer.errors import InputError

P = ParamSpec("P")

#: The exit code that a shell gives a program which SIGPIPE has ended.
_SIGPIPE = 128 + 13


def fail(error: Exception, conf: str, config_name: str, arguments: list[str]) -> NoReturn:
    """Print the error in one line and exit with 2; ``conf`` is the folder of the configs."""
    print(f"error: {explain(error, conf, config_name, arguments)}", file=sys.stderr)
    sys.exit(2)


def full_disk(error: OSError) -> InputError:
    """Return what to say of a write that the file system refused."""
    name = f" {error.filename}" if error.filename else " a file"
    return InputError(
        f"{error.strerror}: could not write{name}; free space and give the command again, or for "
        "a training run resume=CHECKPOINT with it"
    )


def ends_quietly(main: Callable[P, None]) -> Callable[P, None]:
    """Let a program end without a traceback when nobody reads what it prints, as in ``fer train --help | head``."""

    @wraps(main)
    def quiet(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            try:
                main(*args, **kwargs)
            finally:
                # here, not as the interpreter ends, where an error could no longer be caught
                sys.stdout.flush()
        except BrokenPipeError:
            # what is still in the buffer has nowhere to go
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(_SIGPIPE)

    return quiet


def explain(error: Exception, conf: str, config_name: str, arguments: list[str]) -> str:
    """Return one line for an error of ours, Hydra's or OmegaConf's, with the valid keys where one is wrong."""
    text = str(error)
    if text.startswith("Could not override '"):
        key = text.split("'")[1]
        others = [a for a in arguments if not a.startswith("-") and a.split("=")[0].lstrip("+~") != key]
        return _unknown_key(key, conf, config_name, others)
    # Hydra lists choices one a line; one line is enough to read and to search for
    return " ".join(text.replace("\t", " ").split())


def _unknown_key(key: str, conf: str, config_name: str, others: list[str]) -> str:
    parent = key.rpartition(".")[0]
    try:
        with initialize_config_dir(conf, version_base="1.3"):
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
