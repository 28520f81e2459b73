"""A Hydra config as plain data: every key is known, has its type, and a target exists that takes it."""

import dataclasses
import difflib
import inspect
import logging
import sys
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fer.errors import InputError


def closest(word: str, valid: Iterable[str]) -> str:
    """Return `` (did you mean ...?)`` for a misspelt word, or nothing."""
    matches = difflib.get_close_matches(word, list(valid), 1)
    return f" (did you mean {matches[0]}?)" if matches else ""


def plain(node: Any, group: str = "the config") -> dict[str, Any]:
    """Return a config node as plain data, its references resolved.

    Raises:
        InputError: it holds no keys, as where a file of the user's sets a whole group to null, or a reference leads
            nowhere.
    """
    if not isinstance(node, DictConfig) or node._is_none() or node._is_missing():
        raise InputError(f"{group}={node}: not a group of keys: choose one with {group}=NAME")
    # of a node that is a mapping OmegaConf makes a dict; its stubs say what it makes of any node
    return cast(dict[str, Any], OmegaConf.to_container(node, resolve=True))


def choose(node: DictConfig, key: str, schemas: Mapping[str, type], group: str) -> type:
    """Return the schema that a config node asks for by its ``key``.

    Raises:
        InputError: there is none of that name.
    """
    value = plain(node, group).get(key)
    if not isinstance(value, str) or value not in schemas:
        raise InputError(f"{group}.{key}={value}: not one of {', '.join(schemas)}{closest(str(value), schemas)}")
    return schemas[value]


def typed(node: DictConfig, schema: type, group: str, others: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return a config node as plain data of the types of ``schema``; ``others`` are keys that are valid beside it.

    Raises:
        InputError: an unknown or missing key, or a value of the wrong type.
    """
    prefix = f"{group}." if group else ""
    fields = [field.name for field in dataclasses.fields(schema)]
    given = plain(node, group)
    for key in map(str, given):
        if key not in fields:
            raise InputError(
                f"there is no key {prefix}{key}{closest(key, (*fields, *others))}; "
                f"valid in {group or 'the config'}: {', '.join((*fields, *others))}"
            )
    merged = OmegaConf.structured(schema)
    for key, value in given.items():
        try:
            merged = OmegaConf.merge(merged, {key: value})
        except (OmegaConfBaseException, OverflowError) as error:
            # of a number that no float can be
            raise InputError(f"{prefix}{key}: {str(error).splitlines()[0]}") from error
    config = plain(cast(DictConfig, merged))
    for key in fields:
        if config.get(key) == "???":
            raise InputError(f"{prefix}{key} is missing: give {prefix}{key}=VALUE")
    return config


def check_target(
    config: dict[str, Any], group: str, given: tuple[str, ...] = (), base: type | None = None
) -> dict[str, Any]:
    """Check that ``_target_`` exists and takes every key of the config, with a value of the type that it says it takes.

    ``given`` are arguments added when it is built.

    It must be ``base`` or a class derived from it, where one is given.

    Raises:
        InputError: naming the key and the valid ones.
    """
    target = config.get("_target_")
    if not target:
        raise InputError(f"{group}._target_ is missing: it names the class to build")
    try:
        callable_ = _located(str(target))
        arguments = inspect.signature(callable_).parameters
    except (ImportError, AttributeError, ValueError, TypeError, HydraException) as error:
        raise InputError(f"{group}._target_={target}: there is no such class") from error
    if base and not (isinstance(callable_, type) and issubclass(callable_, base)):
        raise InputError(f"{group}._target_={target}: not a {base.__module__.split('.')[0]} {base.__name__}")
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
    hints = _hints(callable_)
    for key, value in config.items():
        if key in hints and not _fits(value, hints[key]):
            shown = "null" if value is None else f"{value!s:.40}"
            raise InputError(f"{group}.{key}={shown}: not {_words(hints[key])}, as {target} takes it")
    return config


def _hints(callable_: Any) -> dict[str, Any]:
    """Return the types that a class or function says its arguments have; none where it does not say."""
    try:
        return get_type_hints(callable_.__init__ if isinstance(callable_, type) else callable_)
    except (NameError, TypeError, AttributeError):
        return {}


def _fits(value: Any, hint: Any) -> bool:
    """Say whether plain data is of a type; a bool is no number, and a number is one that a float can be."""
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, types.UnionType):
        return any(_fits(value, one) for one in inner)
    if kind is Literal:
        return any(type(value) is type(one) and value == one for one in inner)
    if kind is float:
        return type(value) in (int, float) and abs(value) <= sys.float_info.max
    if kind in (bool, int):
        return type(value) is kind
    if kind is tuple and inner and Ellipsis not in inner:
        return isinstance(value, list) and len(value) == len(inner) and all(map(_fits, value, inner))
    if kind in (tuple, list, Sequence, Iterable):
        return isinstance(value, list) and all(_fits(item, inner[0]) for item in value if inner)
    # anything, a type variable: nothing is said
    return isinstance(value, kind) if isinstance(kind, type) else True


#: How the types that plain data can have are called.
_NAMES = {
    bool: "true or false", int: "a whole number", float: "a finite number", str: "a text", type(None): "null",
    list: "a list", tuple: "a list", dict: "a group of keys",
}  # fmt: skip


def _words(hint: Any) -> str:
    kind, inner = get_origin(hint) or hint, get_args(hint)
    if kind in (Union, types.UnionType):
        # what only code can make is none of a config's choices
        return " or ".join(dict.fromkeys(words for one in inner if (words := _words(one))))
    if kind is Literal:
        return " or ".join(map(str, inner))
    if kind is tuple and inner and Ellipsis not in inner:
        return f"a list of {len(inner)}, each {' and '.join(dict.fromkeys(map(_words, inner)))}"
    return _NAMES.get(kind, "")


def _located(target: str) -> Any:
    """Return what a dotted name stands for, without the lines that Hydra logs where there is nothing."""
    log = logging.getLogger("hydra.utils")
    before, log.disabled = log.disabled, True
    try:
        return hydra.utils.get_object(target)
    finally:
        log.disabled = before
