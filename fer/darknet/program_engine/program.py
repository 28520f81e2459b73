"""The darknet program on this machine: which of the three it is, what it lacks, and how it is called."""

import functools
import os
import re
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from fer.darknet.formats.cfg import Section
from fer.darknet.formats.dialects import DIALECTS, Dialect
from fer.darknet.formats.option_table import known_options
from fer.errors import InputError

_ALEXEYAB = "AlexeyAB's program, darknet.binary=PATH"


@dataclass(frozen=True, slots=True)
class Program:
    """A darknet program: ``dialect``, a key of `DIALECTS`, and what it is linked with, ``gpu`` and ``opencv``."""

    path: Path
    dialect: str
    gpu: bool
    opencv: bool

    @property
    def tables(self) -> Dialect:
        """What is known of its dialect."""
        return DIALECTS[self.dialect]

    @property
    def title(self) -> str:
        return f"{self.tables.title} ({self.path})"

    def has_flag(self, task: str, flag: str) -> bool:
        """Return whether ``task train`` knows a flag, named without its dash."""
        return flag in self.tables.train_flags.get(task, ())

    @property
    def has_map(self) -> bool:
        return "map" in self.tables.actions["detector"]


def find_program(binary: str | None) -> Program:
    """Return the program of ``darknet.binary=``, a path or a name, or ``darknet`` of PATH; it is read, not run.

    Raises:
        InputError: it is not there, or none of the three known programs.
    """
    get = (
        "`apt-get install darknet` gets Debian's of 2018 (classifiers and v3), AlexeyAB/darknet built from source does "
        "v4 too: darknet.binary=PATH; darknet.engine=torch scores and runs .weights without any"
    )
    executable = shutil.which(os.path.expanduser(binary or "darknet"))
    if executable is None:
        where = f"darknet.binary={binary}: no such program" if binary else "no darknet program on PATH"
        raise InputError(f"{where}; {get}")
    path = Path(executable).absolute()
    return _inspect(path, path.stat().st_mtime_ns)


@functools.lru_cache
def _inspect(path: Path, changed: int) -> Program:
    data = path.read_bytes()
    matches = [name for name, dialect in DIALECTS.items() if all(mark in data for mark in dialect.marks)]
    if len(matches) != 1:
        raise InputError(
            f"{path} is none of the darknet programs known here (Debian's of 2018, AlexeyAB's, hank-ai's since v3.1); "
            "give the program itself, no script, as darknet.binary=PATH"
        )
    # both are named in the table of libraries; no program calls cuBLAS or its AMD counterpart without a GPU build
    return Program(path, matches[0], re.search(rb"cublas|hipblas|rocblas", data) is not None, b"libopencv_" in data)


def note(program: Program) -> str | None:
    """Return what a user should know before training with this program, or None."""
    if program.dialect == "alexeyab" and not program.gpu:
        return (
            f"{program.title} is built without CUDA, and its training on CPU has measured faults: the default "
            "-Ofast build turns to NaN, the biases of batch normalisation stay 0, and gradients are lost where a net "
            "branches; Debian's darknet (unbranched nets) or a CUDA build train right"
        )
    return None


def command(
    program: Program,
    task: str,
    action: str,
    data: Path,
    cfg: Path,
    weights: Path | None = None,
    *,
    flags: Collection[str] = (),
    mjpeg_port: int | None = None,
    gpus: str | None = None,
) -> list[str]:
    """Return the arguments that run ``task action``, e.g. detector train.

    ``flags`` are names (clear, map, dont_show) and only for training, like the port, which the program opens on every
    address of the machine, and the GPUs ("0,1").

    Raises:
        InputError: the program has no such command or flag.
    """
    _require_action(program, task, action)
    values = {"mjpeg_port": mjpeg_port, "gpus": gpus}
    given = {*flags, *(name for name, value in values.items() if value is not None)}
    if action == "train":
        _require_flags(program, task, given)
    elif given:
        raise InputError(f"{program.title}: {', '.join(sorted(given))} is for `{task} train`, not `{task} {action}`")
    arguments: list[object] = [program.path, task, action, data, cfg, *([weights] if weights else [])]
    for name in sorted(given):
        arguments += [f"-{name}", *([values[name]] if name in values else [])]
    return [str(argument) for argument in arguments]


def partial_command(program: Program, cfg: Path, weights: Path, out: Path, n: int) -> list[str]:
    """Return the arguments that write the first ``n`` layers of ``weights`` to ``out``."""
    return [str(program.path), "partial", str(cfg), str(weights), str(out), str(n)]


def _require_action(program: Program, task: str, action: str) -> None:
    actions = program.tables.actions
    if task not in actions:
        raise InputError(f"{program.title} has no `{task}` command since v3.1: use Debian's or {_ALEXEYAB}")
    if action not in actions[task]:
        why = "opens a window" if (program.dialect, action) == ("pjreddie", "test") else "is not there"
        raise InputError(f"{program.title}: `{task} {action}` {why}; use {_ALEXEYAB}")


def _require_flags(program: Program, task: str, flags: Collection[str]) -> None:
    for flag in sorted(flags):
        if not program.has_flag(task, flag):
            raise InputError(
                f"darknet.{flag}: `{task} train` of {program.title} has no -{flag}; leave it out or use "
                f"{'a program that has it' if program.dialect == 'alexeyab' else _ALEXEYAB}"
            )
    if "gpus" in flags and not program.gpu:
        raise InputError(
            f"darknet.gpus: {program.title} is built without CUDA; leave it out or give darknet.binary=PATH"
        )
    if "mjpeg_port" in flags and not program.opencv:
        raise InputError(f"darknet.mjpeg_port: {program.title} is built without OpenCV and would not open the port")


def require_support(
    program: Program, sections: Sequence[Section], task: str, flags: Collection[str] = (), action: str = "train"
) -> None:
    """Refuse a net, a task or flags that the program lacks: it would leave them out, most often with exit code 0.

    For another ``action`` than train, options that matter in training only are let pass.

    Raises:
        InputError: names the section and its line, the option and the remedy.
    """
    training = action == "train"
    _require_action(program, task, action)
    if training:
        _require_flags(program, task, flags)
    for index, section in enumerate(sections, -1):
        if lack := _lack(program, section, task, training):
            # a recipe has no lines; the program counts layers from 0, without [net]
            where = f" at line {section.line}" if section.line else f" (layer {index})" if index >= 0 else ""
            raise InputError(f"[{section.kind}]{where}: {lack}")


def _lack(program: Program, section: Section, task: str, training: bool) -> str | None:
    kind = section.kind
    use = "take it out" if program.dialect == "alexeyab" else f"use {_ALEXEYAB}"
    if kind in program.tables.missing_layers:
        return f"{program.title} has no such layer; {use}"
    for option, value in section.options.items():
        values = program.tables.known_values(kind, option)
        if values is not None and value not in values:
            return f"{program.title} has no {option}={value} and would take another; {use}"
        if why := _lacks_option(program, kind, option, value, training):
            return f"{option}={value} {why}"
    if program.dialect == "pjreddie" and kind == "shortcut" and "," in section.options.get("from", ""):
        return f"{program.title} adds one layer only, not from={section.options['from']}; {use}"
    if program.dialect == "alexeyab" and training and kind == "net" and task == "detector":
        # it would end at the first photo
        if not program.opencv and not _is_off(section, "mosaic"):
            return (
                "mosaic=1 in a detector needs a program built with OPENCV=1 (darknet.binary=PATH), or darknet.mosaic=0"
            )
        if not _is_off(section, "cutmix"):
            return f"cutmix=1 is for classifiers only in {program.title}; set darknet.cutmix=0"
    return None


def _lacks_option(program: Program, kind: str, name: str, value: str, training: bool) -> str | None:
    """Return why an option would be left out, None if it is read or makes no difference."""
    options = known_options(kind)
    if options is None:
        return None
    option = options.get(name)
    if option is None:
        return "is read by none of the known darknet programs: correct or delete it"
    if program.dialect in option.programs or (option.training and not training):
        return None
    # hank-ai's ends at any option that it does not read
    if program.dialect != "hank" and option.is_neutral(value):
        return None
    other = "Debian's program" if option.programs == {"pjreddie"} else _ALEXEYAB
    remedy = f"or set {name}={option.neutral}" if option.neutral else "or take it out"
    return f"is not read by {program.title}; use {other}, {remedy}"


def _is_off(section: Section, name: str) -> bool:
    """Return whether an option that came later has the value that asks for nothing, or is not there."""
    value, option = section.options.get(name), (known_options(section.kind) or {}).get(name)
    return value is None or (option is not None and option.is_neutral(value))
