"""A Hydra config as plain data: every key is known, has its type, and a target exists that takes it."""

import dataclasses
import difflib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any, cast

import hydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fer.errors import InputError


def closest(word: str, valid: Iterable[str]) -> str:
    """Return `` (did you mean ...?)`` for a misspelt word, or nothing."""
    matches = difflib.get_close_matches(word, list(valid), 1)
    return f" (did you mean {matches[0]}?)" if matches else ""


def plain(node: DictConfig) -> dict[str, Any]:
    """Return a config node as plain data, its references resolved."""
    # of a node that is a mapping OmegaConf makes a dict; its stubs say what it makes of any node
    return cast(dict[str, Any], OmegaConf.to_container(node, resolve=True))


def choose(node: DictConfig, key: str, schemas: Mapping[str, type], group: str) -> type:
    """Return the schema that a config node asks for by its ``key``.

    Raises:
        InputError: there is none of that name.
    """
    value = node.get(key)
    if value not in schemas:
        raise InputError(f"{group}.{key}={value}: not one of {', '.join(schemas)}{closest(str(value), schemas)}")
    return schemas[value]


def typed(node: DictConfig, schema: type, group: str, others: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return a config node as plain data of the types of ``schema``; ``others`` are keys that are valid beside it.

    Raises:
        InputError: an unknown or missing key, or a value of the wrong type.
    """
    prefix = f"{group}." if group else ""
    fields = [field.name for field in dataclasses.fields(schema)]
    for key in map(str, node):
        if key not in fields:
            raise InputError(
                f"there is no key {prefix}{key}{closest(key, (*fields, *others))}; "
                f"valid in {group or 'the config'}: {', '.join((*fields, *others))}"
            )
    try:
        config = plain(cast(DictConfig, OmegaConf.merge(OmegaConf.structured(schema), plain(node))))
    except OmegaConfBaseException as error:
        raise InputError(f"{prefix}{error.key or ''}: {str(error).splitlines()[0]}") from error
    for key in fields:
        if config.get(key) == "???":
            raise InputError(f"{prefix}{key} is missing: give {prefix}{key}=VALUE")
    return config


def check_target(config: dict[str, Any], group: str, given: tuple[str, ...] = ()) -> dict[str, Any]:
    """Check that ``_target_`` exists and takes every key of the config; ``given`` are arguments added when it is built.

    Raises:
        InputError: naming the key and the valid ones.
    """
    target = config.get("_target_")
    if not target:
        raise InputError(f"{group}._target_ is missing: it names the class to build")
    try:
        callable_ = hydra.utils.get_object(target)
    except (ImportError, AttributeError, ValueError, hydra.errors.HydraException) as error:
        raise InputError(f"{group}._target_={target}: there is no such class") from error
    arguments = inspect.signature(callable_).parameters
    valid = [name for name in arguments if name not in given]
    for key in config:
        if key != "_target_" and key not in valid:
            raise InputError(f"there is no key {group}.{key}{closest(key, valid)}; {target} takes {', '.join(valid)}")
    missing = [
        name for name, argument in arguments.items()
        if argument.default is argument.empty and name not in config and name not in given
        and argument.kind in (argument.POSITIONAL_OR_KEYWORD, argument.KEYWORD_ONLY)
    ]  # fmt: skip
    if missing:
        raise InputError(f"{group}.{missing[0]} is missing: {target} needs it")
    return config
