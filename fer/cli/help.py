"""What ``--help`` lists of a command: its groups with their choices, and its keys with the lines of their YAML."""

import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

#: The place of a key in a file, such as ("trainer", "devices"), and what its comment says.
Comments = Mapping[tuple[str, ...], str]

#: A line of a YAML file: its indentation, its key, and the comment behind its value, which may have # in quotes.
_LINE = re.compile(r"""^( *)(?:- )?(\w+):(?:[^#'"]|(?<=\S)#|'[^']*'|"[^"]*")*(?:# (.*))?$""")
#: Where explanations begin.
_COLUMN = 36


def choices(*groups: str, _root_: DictConfig) -> str:
    """Return the named groups, each with what is chosen of it and what it is for, and below that all its choices."""
    folders = _folders(_root_)
    comments = _of_command(_root_)
    lines = []
    for group in groups:
        names = {path.stem for folder in folders for path in (folder / group).glob("*.yaml")}
        if group == "data" and _root_.hydra.job.config_name != "train":
            # a data module is trained on, and nothing else
            names.discard("module")
        lines += _row(f"{group}={_chosen(_root_, group)}", comments.get(("defaults", group), ""))
        indent = " " * 6
        lines += textwrap.wrap(", ".join(sorted(names)), _width(), initial_indent=indent, subsequent_indent=indent)
    return _escaped(lines)


def keys(*first: str, _root_: DictConfig) -> str:
    """Return the keys of a command, one a line: the ``first`` ones, those of no group, then those of each group."""
    values = {key: value for key, value in _values(_root_) if not key.startswith("hydra.")}
    comments = dict(_of_command(_root_))
    groups = [group for group in map(str, _root_) if (_folders(_root_)[0] / group).is_dir() and group != "hydra"]
    heads = {}
    for group in groups:
        heads[group], found = _of_group(_root_, group)
        comments = {(group, *place): comment for place, comment in found.items()} | comments
    rest = [key for key in values if key not in first]
    parts = [("", [key for key in first if key in values]), ("", [k for k in rest if k.split(".")[0] not in groups])]
    parts += [(heads[group], [key for key in rest if key.split(".")[0] == group]) for group in groups]
    lines = []
    for head, names in parts:
        # what makes a part is of interest where the user has to name it, and there it has a comment
        rows = [(name, comments.get(tuple(name.split(".")), "")) for name in names]
        rows = [(name, comment) for name, comment in rows if comment or not name.endswith("_target_")]
        lines += ["", *(textwrap.wrap(head, _width(), subsequent_indent="  ") if head else [])] if rows else []
        for name, comment in rows:
            lines += _row(f"{name}={values[name]}", comment)
    return _escaped(lines[1:])


def _folders(root: DictConfig) -> list[Path]:
    """Return the folders of configs: ours, then those of --config-dir."""
    return [Path(source.path) for source in root.hydra.runtime.config_sources if source.schema == "file"]


def _chosen(root: DictConfig, group: str) -> str:
    """Return what is chosen of a group, as one types it."""
    if group in root.hydra.runtime.choices:
        return str(root.hydra.runtime.choices[group] or "null")
    # of a list Hydra keeps no record, but each choice of such a group is one key of its name
    return f"[{','.join(map(str, root.get(group) or ()))}]"


def _of_command(root: DictConfig) -> Comments:
    return _comments(_folders(root)[0] / f"{root.hydra.job.config_name}.yaml")


def _of_group(root: DictConfig, group: str) -> tuple[str, Comments]:
    """Return the head of a group's keys and their comments, which where its file has none are those of its siblings."""
    files = [path for folder in _folders(root) for path in sorted((folder / group).glob("*.yaml"))]
    chosen = _chosen(root, group)
    files.sort(key=lambda path: path.stem not in chosen.strip("[]").split(","))
    comments: dict[tuple[str, ...], str] = {}
    for path in files:
        comments = dict(_comments(path)) | comments
    about = [_about(path) for path in files if path.stem == chosen]
    return ": ".join([f"{group}={chosen}", *about[:1]]), comments


def _about(path: Path) -> str:
    """Return what the first lines of a YAML file say that it is."""
    lines = path.read_text(errors="replace").removeprefix("# @package _global_\n").splitlines()
    return " ".join(line[2:].strip() for line in takewhile(lambda line: line.startswith("#"), lines))


def _comments(path: Path) -> Comments:
    """Return the comments of a YAML file by the places of their keys; lines of comment below one go on with it."""
    found: dict[tuple[str, ...], str] = {}
    above: list[tuple[int, str]] = []
    column = -1
    for line in path.read_text(errors="replace").splitlines():
        if match := _LINE.match(line):
            blanks, key, comment = match.groups()
            above = [*(outer for outer in above if outer[0] < len(blanks)), (len(blanks), key)]
            found[tuple(name for _, name in above)] = comment or ""
            column = match.start(3) - 2 if comment else -1
        elif column >= 0 and re.match(f" {{{column}}}# ", line):
            found[tuple(name for _, name in above)] += f" {line[column + 2 :]}"
        else:
            column = -1
    return found


def _values(config: DictConfig, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Return the keys of a config that hold values, and these as one types them."""
    for name in map(str, config):
        node = config._get_node(name)
        if isinstance(node, DictConfig) and not node._is_none() and not node._is_interpolation():
            yield from _values(node, f"{prefix}{name}.")
        elif OmegaConf.is_missing(config, name):
            yield prefix + name, "???"
        else:
            try:
                value = config[name]
            except OmegaConfBaseException:
                # it refers to a key that is not set yet
                value = node._value() if node is not None else None
            yield prefix + name, _typed(value)


def _typed(value: Any) -> str:
    if isinstance(value, ListConfig):
        return f"[{','.join(map(_typed, value))}]"
    if isinstance(value, DictConfig):
        return f"{{{','.join(f'{key!s}:{_typed(value[key])}' for key in value)}}}"
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value) or "''"


def _row(key: str, comment: str) -> list[str]:
    """Return a key and its explanation: a line, or where the terminal is narrower several."""
    start = f"  {key}".ljust(_COLUMN - 2) + "  "
    if not comment:
        return [start.rstrip()]
    return textwrap.wrap(comment, _width(), initial_indent=start, subsequent_indent=" " * _COLUMN) or [start.rstrip()]


def _width() -> int:
    """Return the columns of the terminal; what is no terminal, such as a file or grep, is given whole lines."""
    return max(shutil.get_terminal_size().columns, 80) if sys.stdout.isatty() else 100_000


def _escaped(lines: Iterable[str]) -> str:
    # Hydra reads the text as a `string.Template`
    return "\n".join(lines).replace("$", "$$")
