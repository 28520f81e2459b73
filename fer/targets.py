"""Parts that a config names: ``_target_`` is the dotted name of a class or function, the other keys are its arguments.

The signature is the schema: what a target takes, and of which type, stands in its constructor and nowhere else.
"""

import contextlib
import functools
import inspect
import math
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from importlib import import_module
from typing import Any, Literal, Union

from fer.blame import one_line
from fer.errors import InputError, closest
from fer.system.files import is_unwritable

#: What a config may say of a target beside its arguments, in Hydra's words.
_WORDS = ("_target_", "_partial_")


_TRUSTED: ContextVar[tuple[str, ...]] = ContextVar("trusted", default=())


@contextlib.contextmanager
def trusting(packages: Iterable[str]) -> Iterator[None]:
    """Let checkpoints that are opened in the block name targets of these packages, modules or classes, and run them.

    Raises:
        InputError: not a list of names such as my_lab or my_lab.networks.
    """
    if isinstance(packages, str):
        packages = [packages]
    given = tuple(packages) if isinstance(packages, Iterable) else (packages,)
    for name in given:
        if not isinstance(name, str) or not all(part.isidentifier() for part in name.split(".")):
            raise InputError(f"trust={name}: not the name of a package, such as trust=[my_lab]")
    token = _TRUSTED.set((*_TRUSTED.get(), *given))
    try:
        yield
    finally:
        _TRUSTED.reset(token)


def is_trusted(target: str) -> bool:
    """Whether a target is of a package that the user trusts, see `trusting`; nothing is imported."""
    return any(target == name or target.startswith(f"{name}.") for name in _TRUSTED.get())


def locate(target: str, group: str = "") -> Callable[..., Any]:
    """Return the class or function of a dotted name such as ``torch.optim.SGD``; its module is imported.

    Raises:
        InputError: there is none of that name, or its module cannot be imported.
    """
    key = f"{group}._target_={target}" if group else str(target)
    parts = target.split(".") if isinstance(target, str) else []
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise InputError(f"{key}: not the name of a class or function, such as my_package.my_module.MyClass")
    found: Any = None
    for length in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:length])
        try:
            found = import_module(module)
        except ModuleNotFoundError as error:
            if error.name and (module == error.name or module.startswith(f"{error.name}.")):
                # not a module but a class in one, or nothing
                continue
            raise InputError(f"{key}: {module} needs the package {error.name}, which is not installed") from error
        except InputError:
            raise
        except Exception as error:
            # the code is the user's own and may raise anything
            raise InputError(f"{key}: {module} cannot be imported: {one_line(error)}") from error
        for part in parts[length:]:
            if not hasattr(found, part):
                valid = [name for name in vars(found) if not name.startswith("_")] if hasattr(found, "__dict__") else []
                raise InputError(f"{key}: there is no such class: {part} is not in {module}{closest(part, valid)}")
            found = getattr(found, part)
        break
    else:
        raise InputError(f"{key}: there is no such class: no module {parts[0]} in this folder or among the packages")
    if not callable(found):
        raise InputError(f"{key}: neither a class nor a function")
    return found


def build(config: Mapping[str, Any], group: str = "", /, **given: Any) -> Any:
    """Build what a checked config describes; targets among its arguments are built before it.

    ``group`` is the key that errors name. ``given`` are arguments that are added. With ``_partial_: true`` the callable
    is returned with its arguments bound.

    Raises:
        InputError: the constructor raises whatever error, as of an argument's value.
        OSError: it cannot write, as on a full disk.
    """
    target = config["_target_"]
    callable_ = locate(target, group)
    built = {key: _built(value, _below(group, key)) for key, value in config.items() if key not in _WORDS}
    arguments = built | given
    if config.get("_partial_"):
        return functools.partial(callable_, **arguments)
    try:
        return callable_(**arguments)
    except InputError:
        raise
    except Exception as error:
        # the code may be the user's own
        if isinstance(error, OSError) and is_unwritable(error):
            raise
        raise InputError(f"{_below(group, '_target_=')}{target}: cannot be built: {one_line(error)}") from error


def _below(group: str, key: object) -> str:
    return f"{group}.{key}" if group else "" if key == "_target_=" else str(key)


def _built(value: Any, key: str) -> Any:
    if isinstance(value, Mapping):
        if "_target_" in value:
            return build(value, key)
        return {name: _built(each, _below(key, name)) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_built(each, _below(key, number)) for number, each in enumerate(value)]
    return value


def takes(target: str, names: Iterable[str]) -> list[str]:
    """Return those of ``names`` that a target has arguments for."""
    parameters = inspect.signature(locate(target)).parameters.values()
    return [name for name in names if any(p.name == name and p.kind not in _COLLECTING for p in parameters)]


def check_target(
    config: dict[str, Any],
    group: str,
    given: Iterable[str] = (),
    base: type | None = None,
    offered: Iterable[str] = (),
) -> dict[str, Any]:
    """Check that ``_target_`` exists and takes every key of the config, with values of the types it states.

    ``given`` are arguments added when it is built, ``offered`` those added where it takes them. It must be ``base`` or
    a class derived from it, where one is given. Targets among the arguments are checked alike.

    Raises:
        InputError: naming the key and the valid ones.
    """
    target = config.get("_target_")
    if not target or target == "???":
        raise InputError(f"{group}._target_ is missing: it names the class to build")
    callable_ = locate(target, group)
    if base and not (isinstance(callable_, type) and issubclass(callable_, base)):
        raise InputError(f"{group}._target_={target}: not a {base.__module__.split('.')[0]} {base.__name__}")
    try:
        parameters = inspect.signature(callable_).parameters
    except (ValueError, TypeError) as error:
        raise InputError(f"{group}._target_={target}: does not say which arguments it takes") from error
    named = {name: p for name, p in parameters.items() if p.kind not in _COLLECTING}
    added = {*given, *offered}
    valid = [name for name in named if name not in added]
    anything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    types_ = _annotations(callable_)
    for key, value in config.items():
        if key in _WORDS:
            continue
        if key in added:
            raise InputError(f"{group}.{key}={value}: is given to {target} by the program; leave it out")
        if key not in valid and not anything:
            raise InputError(
                f"there is no key {group}.{key}{closest(key, valid)}; {target} takes {', '.join(valid) or 'none'}"
            )
        if key in types_ and not _fits(value, types_[key]):
            shown = "null" if value is None else f"{value!s:.40}"
            raise InputError(f"{group}.{key}={shown}: not {_words(types_[key])}, as {target} takes it")
        _check_nested(value, f"{group}.{key}")
    missing = [
        name for name, p in named.items() if p.default is p.empty and name not in config and name not in added
    ]  # fmt: skip
    if missing and not config.get("_partial_"):
        raise InputError(f"{group}.{missing[0]} is missing: {target} needs it")
    return config


_COLLECTING = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _check_nested(value: Any, key: str) -> None:
    if isinstance(value, Mapping):
        if "_target_" in value:
            check_target(dict(value), key)
        else:
            for name, each in value.items():
                _check_nested(each, f"{key}.{name}")
    elif isinstance(value, list | tuple):
        for number, each in enumerate(value):
            _check_nested(each, f"{key}.{number}")
    elif isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"{key}={value}: not a finite number")


def _annotations(callable_: Callable[..., Any]) -> dict[str, Any]:
    """Return the types that a callable states of its arguments, none where they cannot be told."""
    described = callable_.__init__ if isinstance(callable_, type) else callable_  # type: ignore[misc]
    try:
        return typing.get_type_hints(described)
    except Exception:
        # names that only a type checker knows
        return {}


def _fits(value: Any, hint: Any) -> bool:
    """Say whether plain data is of a type; a bool is no number, and a number is one that a float can be."""
    if isinstance(value, Mapping) and "_target_" in value:
        # what it builds is not known before
        return True
    kind, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
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
    try:
        # a type variable: nothing is said
        return isinstance(value, kind) if isinstance(kind, type) else True
    except TypeError:
        # typing.Any and protocols are classes that nothing can be tried against
        return True


#: How the types that plain data can have are called.
_NAMES = {
    bool: "true or false", int: "a whole number", float: "a finite number", str: "a text", type(None): "null",
    list: "a list", tuple: "a list", dict: "a group of keys",
}  # fmt: skip


def _words(hint: Any) -> str:
    kind, inner = typing.get_origin(hint) or hint, typing.get_args(hint)
    if kind in (Union, types.UnionType):
        # what only code can make is none of a config's choices
        return " or ".join(dict.fromkeys(words for one in inner if (words := _words(one))))
    if kind is Literal:
        return " or ".join(map(str, inner))
    if kind is tuple and inner and Ellipsis not in inner:
        return f"a list of {len(inner)}, each {' and '.join(dict.fromkeys(map(_words, inner)))}"
    return _NAMES.get(kind, "")
