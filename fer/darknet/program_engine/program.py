"""The darknet program on this machine: which of the three it is, what it lacks, and how it is called."""

import functools
import os
import re
import shutil
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from fer.darknet.formats import dialects
from fer.darknet.formats.cfg import Section
from fer.errors import InputError

_ALEXEYAB = "AlexeyAB's program, darknet.binary=PATH"


@dataclass(frozen=True, slots=True)
class Program:
    """A darknet program: ``dialect`` is pjreddie, alexeyab or hank; ``gpu`` and ``opencv``: what it is linked with."""

    path: Path
    dialect: str
    gpu: bool
    opencv: bool

    @property
    def title(self) -> str:
        return f"{dialects.TITLES[self.dialect]} ({self.path})"

    @property
    def has_classifier(self) -> bool:
        return "classifier" in dialects.ACTIONS[self.dialect]

    def has_flag(self, task: str, flag: str) -> bool:
        """Return whether ``task train`` knows a flag, named without its dash."""
        return flag in dialects.TRAIN_FLAGS[self.dialect].get(task, ())

    @property
    def has_map(self) -> bool:
        return "map" in dialects.ACTIONS[self.dialect]["detector"]


def find_program(binary: str | None) -> Program:
    """Return the program of ``darknet.binary=``, a path or a name, or ``darknet`` of PATH; it is read, not run.

    Raises:
        InputError: it is not there, or none of the three known programs.
    """
    get = (
        "`apt-get install darknet` gets Debian's of 2018 (classifiers and v3), AlexeyAB/darknet built from source does "
        "v4 too: darknet.binary=PATH; darknet.engine=torch scores and runs .weights without any"
    )
    found = shutil.which(os.path.expanduser(binary or "darknet"))
    if found is None:
        where = f"darknet.binary={binary}: no such program" if binary else "no darknet program on PATH"
        raise InputError(f"{where}; {get}")
    path = Path(found).absolute()
    return _inspect(path, path.stat().st_mtime_ns)


@functools.lru_cache
def _inspect(path: Path, changed: int) -> Program:
    data = path.read_bytes()
    found = [dialect for dialect, marks in dialects.MARKS.items() if all(mark in data for mark in marks)]
    if len(found) != 1:
        raise InputError(
            f"{path} is none of the darknet programs known here (Debian's of 2018, AlexeyAB's, hank-ai's since v3.1); "
            "give the program itself, no script, as darknet.binary=PATH"
        )
    # both are named in the table of libraries; no program calls cuBLAS or its AMD counterpart without a GPU build
    return Program(path, found[0], re.search(rb"cublas|hipblas|rocblas", data) is not None, b"libopencv_" in data)


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
    task: str | None,
    action: str,
    data: Path | None,
    cfg: Path,
    weights: Path | None = None,
    *,
    flags: Collection[str] = (),
    mjpeg_port: int | None = None,
    gpus: str | None = None,
    out: Path | None = None,
    n: int | None = None,
) -> list[str]:
    """Return the arguments that run ``task action``, e.g. detector train; ``partial`` has no task and no data.

    ``flags`` are names (clear, map, dont_show) and only for training, like the port, which the program opens on every
    address of the machine, and the GPUs ("0,1"). ``out`` and ``n``: the file and number of layers of ``partial``.

    Raises:
        InputError: the program has no such command or flag.
    """
    if action == "partial":
        return [str(program.path), "partial", str(cfg), str(weights), str(out), str(n)]
    _require_action(program, task, action)
    values = {"mjpeg_port": mjpeg_port, "gpus": gpus}
    wanted = {*flags, *(name for name, value in values.items() if value is not None)}
    if action == "train":
        _require_flags(program, task, wanted)
    elif wanted:
        raise InputError(f"{program.title}: {', '.join(sorted(wanted))} is for `{task} train`, not `{task} {action}`")
    arguments = [program.path, task, action, data, cfg, *([weights] if weights else [])]
    for name in sorted(wanted):
        arguments += [f"-{name}", *([values[name]] if name in values else [])]
    return [str(argument) for argument in arguments]


def _require_action(program: Program, task: str, action: str) -> None:
    actions = dialects.ACTIONS[program.dialect]
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
    if kind in dialects.LACKS_LAYERS[program.dialect]:
        return f"{program.title} has no such layer; {use}"
    for option, value in section.options.items():
        known = dialects.VALUES.get((kind, option), dialects.VALUES.get(("", option), {})).get(program.dialect)
        if known is not None and value not in known.split():
            return f"{program.title} has no {option}={value} and would take another; {use}"
        if training or option not in dialects.TRAINING.get(kind, ()):
            if why := _lacks_option(program, kind, option, value):
                return f"{option}={value} {why}"
    if program.dialect == "pjreddie" and kind == "shortcut" and "," in section.options.get("from", ""):
        return f"{program.title} adds one layer only, not from={section.options['from']}; {use}"
    if program.dialect == "alexeyab" and training and kind == "net" and task == "detector":
        # it would end at the first photo
        if not program.opencv and not _same(section.options.get("mosaic", "0"), "0"):
            return (
                "mosaic=1 in a detector needs a program built with OPENCV=1 (darknet.binary=PATH), or darknet.mosaic=0"
            )
        if not _same(section.options.get("cutmix", "0"), "0"):
            return f"cutmix=1 is for classifiers only in {program.title}; set darknet.cutmix=0"
    return None


def _lacks_option(program: Program, kind: str, option: str, value: str) -> str | None:
    """Return why an option would be left out, None if it is read or makes no difference."""
    if kind not in dialects.OPTIONS:
        return None
    generic = kind != "net"
    newer = dialects.NEWER.get(kind, {}) | (dialects.NEWER[""] if generic else {})
    both = {*dialects.OPTIONS[kind].split(), *(dialects.OPTIONS[""].split() if generic else ())}
    only = {*dialects.PJREDDIE_ONLY.get(kind, "").split(), *(dialects.PJREDDIE_ONLY[""].split() if generic else ())}
    if program.dialect == "pjreddie":
        read = both | only
    else:
        read = (both | newer.keys()) - (dialects.NOT_HANK if (program.dialect, kind) == ("hank", "net") else set())
    if option in read:
        return None
    if option not in newer and option not in both | only:
        return "is read by none of the known darknet programs: correct or delete it"
    neutral = newer.get(option)
    # hank-ai's ends at any option that it does not read
    if program.dialect != "hank" and (neutral is dialects.COSMETIC or (neutral is not None and _same(value, neutral))):
        return None
    other = "Debian's program" if option in only else _ALEXEYAB
    remedy = f"or set {option}={neutral}" if neutral and neutral is not dialects.COSMETIC else "or take it out"
    return f"is not read by {program.title}; use {other}, {remedy}"


def _same(value: str, neutral: str) -> bool:
    try:
        return float(value) == float(neutral)
    except ValueError:
        return value == neutral
