"""Errors in one line: what the user got wrong, in Hydra's words or ours, with the valid keys where one is wrong."""

import os
import re
import signal
import sys
import traceback
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import NoReturn, ParamSpec

from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fer.cli.arguments import foreign_flag, key_for, keys_of, literal, own_configs
from fer.config.moved import CHOICES, KEYS
from fer.errors import InputError, closest, printable
from fer.system.addresses import without_password
from fer.system.distributed import is_first_rank
from fer.system.files import is_full
from fer.system.signals import came, noticing

P = ParamSpec("P")

#: Choices that a plugin of Hydra brings: the extra that installs it.
_PLUGINS = {
    "hydra/sweeper/optuna": "sweep", "hydra/launcher/submitit_local": "slurm", "hydra/launcher/submitit_slurm": "slurm",
}  # fmt: skip

#: The exit code that a shell gives a program which SIGPIPE has ended.
_SIGPIPE = 128 + 13


def fail(error: Exception, conf: str, config_name: str, arguments: list[str], more: str = "") -> NoReturn:
    """Print the error in one line, ``more`` behind it, and exit with 2; ``conf`` is the folder of the configs.

    Of what comes of Ctrl-C or SIGTERM nothing is said, see `end_interrupted`.
    """
    if came():
        end_interrupted()
    said = explain(error, conf, config_name, arguments) + more
    print(f"error: {printable(without_password(said))}", file=sys.stderr)
    sys.exit(2)


def fail_for_words(arguments: list[str], conf: str, config_name: str) -> None:
    """Print one line and exit with 2 where a word has dashes as in other programs, naming the key that is meant."""
    found = foreign_flag(arguments)
    if found is None:
        return
    flag, value = found
    shown = f"{flag} {value}" if value else flag
    with initialize_config_dir(conf, version_base="1.3"):
        config = compose(config_name)
    key = key_for(flag, config)
    if key:
        remedy = f": {literal(f'{key}={value}') if value else f'{key}=VALUE'}"
    else:
        names = sorted(map(str, config))
        remedy = f"{closest(flag.strip('-'), names)}; valid in {config_name}: {', '.join(names)}"
    fail(InputError(f"{shown}: keys are KEY=VALUE without dashes{remedy}"), conf, config_name, arguments)


def not_composed(error: Exception) -> InputError:
    """Return what to say where Hydra or YAML stumbles over what the user gave, before anything of ours has begun."""
    if type(error).__module__.startswith("submitit."):
        # it is the job's, which ran as a process of its own; the log of that process ends the text
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        said = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        return InputError(f"a job of the sweep ended with an error: {(said or lines)[-1]}")
    if file := file_being_read(error):
        return InputError(f"{file}: cannot be read as a config: {error}; correct it")
    return InputError(f"the configuration cannot be composed: {error}; HYDRA_FULL_ERROR=1 shows where")


def file_being_read(error: Exception) -> str | None:
    """Return the config that Hydra was reading when an error came, which not every error names."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_name == "load_config" and frame.f_globals["__name__"].endswith("file_config_source"):
            return frame.f_locals.get("full_path")
    return None


def unwritable(error: OSError) -> InputError:
    """Return what to say of a file or folder that the operating system refused."""
    name = f"{error.filename}" if error.filename else "a file"
    remedy = "choose another place"
    if is_full(error):
        remedy = "free space and give the command again, or for a training run resume=CHECKPOINT with it"
    return InputError(f"{name}: {str(error.strerror or error).lower()}; {remedy}")


def ends_quietly(main: Callable[P, None]) -> Callable[P, None]:
    """Let a program end without a traceback when nobody reads what it prints, as in ``fer train --help | head``."""

    @wraps(main)
    def quiet(*args: P.args, **kwargs: P.kwargs) -> None:
        if sys.stdout is None:
            # closed by the shell, >&-
            sys.stdout = open(os.devnull, "w")
        try:
            try:
                with noticing():
                    main(*args, **kwargs)
            finally:
                # here, not as the interpreter ends, where an error could no longer be caught
                sys.stdout.flush()
        except BrokenPipeError:
            _forget_output()
            sys.exit(_SIGPIPE)
        except OSError as error:
            if not is_full(error) or error.filename:
                raise
            _forget_output()
            print(f"error: what is printed cannot be written: {str(error.strerror).lower()}", file=sys.stderr)
            sys.exit(1)
        except KeyboardInterrupt:
            # while what a command needs is still being imported
            end_interrupted()

    return quiet


def end_interrupted() -> NoReturn:
    """Exit as a shell has it of a program that Ctrl-C (130, without a word) or SIGTERM (143, one line) has ended."""
    number = came() or signal.SIGINT
    if number == signal.SIGTERM and is_first_rank():
        print("stopped by SIGTERM", file=sys.stderr)
    sys.exit(128 + number)


def _forget_output() -> None:
    """Let what is still in the buffer of stdout go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def explain(error: Exception, conf: str, config_name: str, arguments: list[str]) -> str:
    """Return one line for an error of ours, Hydra's or OmegaConf's, with the valid keys where one is wrong."""
    text = str(error)
    if not text and (cause := error.__cause__ or error.__context__):
        # Hydra's own, of a broken ${...}, has no text
        return " ".join(str(not_composed(cause if isinstance(cause, Exception) else error)).split())
    if text.startswith("Could not override '"):
        key = text.split("'")[1]
        given = next((a for a in arguments if a.split("=")[0].lstrip("+") == key), "")
        others = [a for a in keys_of(arguments) if a.split("=")[0].lstrip("+~") != key]
        if own := own_configs(arguments):
            # without it a group's choice of the user's own is not found, and no valid key could be named
            others.append(f"hydra.searchpath=['file://{os.path.abspath(own)}']")
        return _unknown_key(key, given, conf, config_name, others)
    for plugin, extra in _PLUGINS.items():
        if f"Could not find '{plugin}'" in text:
            return f"{plugin.rpartition('/')[0]}={plugin.rpartition('/')[2]} is not installed: pip install '.[{extra}]'"
    for gone, now in CHOICES.items():
        if f"Could not find '{gone}'" in text:
            return f"{gone.replace('/', '=')} is no more: give {now}"
    if missing := re.search(r"In '(.+)': Could not (?:find|load) '([^']+)/([^'/]+)'", text):
        return _unknown_choice(missing, conf, config_name, arguments)
    if text.startswith("Error merging override "):
        return _of_another_kind(text.removeprefix("Error merging override "), conf, config_name)
    # Hydra lists choices one a line; one line is enough to read and to search for
    return " ".join(text.replace("\t", " ").split())


def _unknown_choice(missing: re.Match[str], conf: str, config_name: str, arguments: list[str]) -> str:
    """Return what to say of a name that there is no file of in a group, which Hydra follows with where it looked."""
    where, group, name = missing.groups()
    folders = [conf, mine] if (mine := own_configs(arguments)) else [conf]
    # Hydra lists none where several may be chosen
    listed = missing.string.partition("Available options")[2].partition("Config search path")[0].splitlines()[1:]
    found = [name.strip() for name in listed if name.strip()]
    found = found or sorted({path.stem for folder in folders for path in Path(folder, group).glob("*.yaml")})
    chosen = "" if where == config_name else f", which {where} chooses"
    valid = f": give one of {', '.join(found)}" if found else ""
    own = (
        ""
        if group.startswith("hydra")
        else f", or a file of your own, {group}/{name}.yaml in the folder of --config-dir"
    )
    return f"there is no {group}={name}{chosen}{closest(name, found)}{valid}{own}"


def _of_another_kind(override: str, conf: str, config_name: str) -> str:
    """Return what to say of a list, a dict or a value that is given for a key which is another of these."""
    key = override.partition("=")[0].lstrip("+")
    with initialize_config_dir(conf, version_base="1.3"):
        node = OmegaConf.select(compose(config_name), key)
    if isinstance(node, ListConfig):
        return f"{override}: not a list: give {key}=[VALUE,VALUE]"
    kind = f"a group of keys: give {key}.KEY=VALUE" if isinstance(node, DictConfig) else f"a value: give {key}=VALUE"
    return f"{override}: {key} is {kind}"


def _unknown_key(key: str, given: str, conf: str, config_name: str, others: list[str]) -> str:
    try:
        with initialize_config_dir(conf, version_base="1.3"):
            config = compose(config_name, others)
            # of `model={_target_: ...}` Hydra names the group, which is there
            key = _strange(key, given, config)
    except (HydraException, OmegaConfBaseException):
        return f"there is no key {key}"
    if key in KEYS:
        return f"{key} has moved: give {KEYS[key]}"
    parent = key.rpartition(".")[0]
    while parent and OmegaConf.select(config, parent) is None:
        parent = parent.rpartition(".")[0]
    node = OmegaConf.select(config, parent) if parent else config
    valid = sorted(map(str, node.keys())) if isinstance(node, DictConfig) else []
    if not valid:
        return f"there is no key {key}: {parent} is a value, not a group"
    hint = closest(key.rpartition(".")[2], valid)
    if not hint and (meant := key_for(key, config)):
        hint = f" (did you mean {meant}?)"
    return f"there is no key {key}{hint}; valid in {parent or config_name}: {', '.join(valid)}"


def _strange(key: str, given: str, config: DictConfig) -> str:
    """Return the first key of a dict ``given`` for the group ``key`` that is not in it, or ``key`` itself."""
    node = OmegaConf.select(config, key)
    if not isinstance(node, DictConfig) or not given:
        return key
    values = OverridesParser.create().parse_override(given).value()
    for name, value in values.items() if isinstance(values, dict) else ():
        if str(name) not in node:
            return f"{key}.{name}"
        if isinstance(value, dict) and isinstance(node[name], DictConfig):
            for inner in value:
                if str(inner) not in node[name]:
                    return f"{key}.{name}.{inner}"
    return key
