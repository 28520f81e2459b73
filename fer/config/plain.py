"""A Hydra config as plain data: every key is known and has its type."""

import dataclasses
from collections.abc import Mapping
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fer.config.moved import KEYS
from fer.errors import InputError, closest


def shown(number: float) -> str:
    """Return a number for a message: of a very long one its first digits."""
    text = str(number)
    return text if len(text) <= 20 else f"{text[:20]}..."


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
        if (now := KEYS.get(f"{prefix}{key}")) is not None:
            raise InputError(f"{prefix}{key} has moved: give {now}")
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
