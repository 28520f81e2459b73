"""The words of a command line before Hydra reads them: names that its grammar would not take, and habits of others."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Glob, Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import DictConfig

from fer.errors import InputError

#: Keys whose values are names, never numbers.
_NAMES = ("source", "ckpt", "out", "verify", "folds", "notes")

#: The key whose value is a sentence, which may look like a sweep.
_SENTENCE = "notes"

#: What other programs call the keys of this one.
_OTHER_NAMES = {
    "epochs": "trainer.max_epochs", "epoch": "trainer.max_epochs", "lr": "optimizer.lr",
    "learning_rate": "optimizer.lr", "batch": "batch_size", "gpus": "trainer.devices", "workers": "num_workers",
    "weights": "ckpt", "checkpoint": "ckpt", "input": "source", "output": "out", "conf": "min_confidence",
    "dataset": "data", "arch": "model",
}  # fmt: skip


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
    except ValueError:
        # a number of thousands of digits, which `check_choices` refuses
        return argument
    except HydraException:
        name = value[0] not in "[{" or there
    else:
        number = key in _NAMES and isinstance(read, int | float)
        sentence = key == _SENTENCE and read is not None
        name = str(read) != value and (there or number or sentence)
    return f"{key}={QuotedString(value, Quote.single).with_quotes()}" if name else argument


def foreign_flag(arguments: list[str]) -> tuple[str, str | None] | None:
    """Return the first word with dashes that is no option of Hydra's, and the value that follows it, if any.

    >>> foreign_flag(["model=vgg11", "-m", "--epochs", "5"]), foreign_flag(["--lr=0.1"]), foreign_flag(["--cfg", "job"])
    (('--epochs', '5'), ('--lr', '0.1'), None)
    """
    known = get_args_parser()._option_string_actions
    for word, following in zip(arguments, [*arguments[1:], "-"], strict=False):
        flag, equals, value = word.partition("=")
        if not flag.startswith("-") or any(option.startswith(flag) for option in known) or flag[:2] in known:
            continue
        if not equals:
            value = "" if following.startswith("-") or "=" in following else following
        return flag, value or None
    return None


def options_first(arguments: Sequence[str]) -> list[str]:
    """Return the words with Hydra's options before the keys: its parser refuses keys on both sides of an option.

    >>> options_first(["model=vgg11", "--config-dir", "mine", "loss=poly", "-m"])
    ['--config-dir', 'mine', '-m', 'model=vgg11', 'loss=poly']
    """
    keys = keys_of(arguments)
    left, options = list(keys), []
    for word in arguments:
        if word in left:
            left.remove(word)
        else:
            options.append(word)
    return [*options, *keys]


def keys_of(arguments: Sequence[str]) -> list[str]:
    """Return the words that are neither options of Hydra nor their values.

    Raises:
        InputError: an option lacks its value, or has one that it does not take.
    """
    return list(_parsed(arguments).overrides)


def own_configs(arguments: Sequence[str]) -> str | None:
    """Return the folder that ``--config-dir`` names, or None."""
    return _parsed(arguments).config_dir


def _parsed(arguments: Sequence[str]) -> Any:
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        # "argument --cfg/-c: expected one argument"; argparse would print its usage, too
        said = message.removeprefix("argument ")
        option = said.split("/")[0].split(":")[0]
        action = parser._option_string_actions.get(option)
        values = [] if action is None else action.choices or [str(action.metavar or action.dest).upper()]
        remedy = f"; give {' or '.join(f'{option} {value}' for value in values)}" if values else ""
        raise InputError(f"{said}{remedy}")

    parser.error = refuse  # type: ignore[method-assign]
    return parser.parse_known_intermixed_args(arguments)[0]


def key_for(name: str, config: DictConfig) -> str | None:
    """Return the key of a config that is meant by what another program may call it, or None.

    ``batch-size`` is ``batch_size``, and ``max_epochs`` is ``trainer.max_epochs``, the only key of that name.
    """
    name = name.strip("-").replace("-", "_").lower()
    keys = list(_keys(config))
    ends = [key for key in keys if key.rpartition(".")[2] == name]
    other = _OTHER_NAMES.get(name)
    if name in keys:
        return name
    if other in keys:
        return other
    return ends[0] if len(ends) == 1 else None


def _keys(config: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in map(str, config):
        yield prefix + key
        node = config._get_node(key)
        if isinstance(node, DictConfig) and not node._is_none() and not node._is_missing():
            yield from _keys(node, f"{prefix}{key}.")


def given_keys() -> list[Override]:
    """Return what the command line of the running job gives, but for Hydra's own."""
    return OverridesParser.create().parse_overrides(HydraConfig.get().overrides.task)


def require_effect(what: str, *without: str, others_than: Sequence[str] = ()) -> None:
    """Refuse keys and groups of the command line that are of no use to ``what``: some, or all but ``others_than``.

    null is as not given.

    Raises:
        InputError: naming what was given.
    """
    for given in given_keys():
        names = {given.key_or_group, given.key_or_group.split(".")[0]}
        useless = not names & set(others_than) if others_than else names & set(without)
        if useless and given.value() is not None:
            raise InputError(f"{given.input_line} has no effect with {what}: leave it out")


#: Groups of which several may be chosen; of any other Hydra would merge them into one that is none of them.
SEVERAL = ("callbacks", "logger")

#: What to do instead of choosing several of a group.
_INSTEAD = {
    "data": "; evaluate takes several",
    "augment": "; a list of transforms is one fer.training.augment.Chain",
}


def check_choices(arguments: list[str], conf: Path, several: Sequence[str] = SEVERAL) -> None:
    """Refuse what Hydra answers with a traceback: a group set to what is no name, a number of thousands of digits.

    A list of names is refused for a group that is not among ``several``.

    Raises:
        InputError: naming the key, and the choices of a group.
    """
    for argument in arguments:
        if argument.startswith("-"):
            continue
        key, _, value = argument.partition("=")
        try:
            override = OverridesParser.create().parse_override(argument)
        except HydraException:
            # Hydra's own words follow
            continue
        except (ValueError, RecursionError) as error:
            shown = value if len(value) <= 20 else f"{value[:20]}... ({len(value):,} characters)"
            raise InputError(f"{key}={shown}: cannot be read as a value ({str(error).split(';')[0]})") from error
        group = override.key_or_group
        if override.value() == [] and group in SEVERAL:
            raise InputError(f"{argument}: none is chosen by its name: give {group}=none")
        hydras = group == "hydra" or group.startswith("hydra/")
        if override.is_delete() or not (hydras or (conf / group).is_dir()):
            continue
        if not all(isinstance(name, str) for name in _values(override)):
            choices = sorted(path.stem for path in (conf / group).glob("*.yaml")) if not hydras else []
            remedy = f": give {group}=NAME ({', '.join(choices)})" if choices else ""
            raise InputError(f"{argument}: {group} is a group of keys, which is chosen by a name{remedy}")
        if not hydras and group not in several and isinstance(override.value(), list):
            raise InputError(f"{argument}: one is chosen here: give {group}=NAME{_INSTEAD.get(group, '')}")


def check_chosen(cfg: DictConfig, hydra: Any, conf: Path, several: Sequence[str] = SEVERAL) -> None:
    """Refuse a list of names that a config of the user's chose for a group that is not among ``several``.

    ``hydra`` is Hydra's own config, whose choices have no entry for a group of which a list was chosen.

    Raises:
        InputError: naming the group.
    """
    for group in map(str, cfg):
        removed = any(override.startswith(f"~{group}") for override in hydra.overrides.task)
        if (conf / group).is_dir() and group not in (*several, *hydra.runtime.choices) and not removed:
            raise InputError(
                f"{group}: a config chooses a list, and one is chosen here: let it say "
                f"`override /{group}: NAME`{_INSTEAD.get(group, '')}"
            )


def _values(override: Override) -> list[Any]:
    """Return what an override gives: all values of a list or a sweep, none of a dict, which sets keys of a group."""
    value = override.value()
    if isinstance(value, Glob):
        return []
    if isinstance(value, ChoiceSweep):
        value = value.list
    values = value if isinstance(value, list) else [value]
    return [v.text if isinstance(v, QuotedString) else v for v in values if not isinstance(v, dict)]
