"""What a run starts from: weights cut with the program's ``partial``, or a file of first layers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fer.darknet.formats.cfg import Section, layers, read_cfg
from fer.darknet.formats.weights import weights_bytes, whole_layers
from fer.darknet.program_engine.process import explain, run
from fer.darknet.program_engine.program import Program, partial_command
from fer.darknet.runs.setup import pretrained_cfg, pretrained_source
from fer.errors import InputError


def pretrained(program: Program, options: dict[str, Any], sections: Sequence[Section], out: Path) -> Path | None:
    """Return the weights file of first layers that ``darknet.pretrained`` asks for, cut where it must be, or None.

    With ``pretrained_layers=N`` the first N layers are cut out of a whole file by the program's own ``partial``, for
    which the cfg of that file must lie beside it or be given as ``pretrained_cfg``. Without it the file must hold a
    whole number of the net's own first layers, as yolov4.conv.137 does.

    Raises:
        InputError: no such file, or one that does not fit the net, with the sizes expected and found.
    """
    source = pretrained_source(options)
    if source is None:
        return None
    n = options["pretrained_layers"]
    if n is None:
        start = source
    else:
        start = out / f"{source.name.split('.')[0]}.conv.{n}"
        _cut(program, options, source, n, start)
    whole_layers(start, sections)
    if n is not None and start.stat().st_size != weights_bytes(sections, n):
        raise InputError(
            f"darknet.pretrained={source}: its first {n} layers are not the first {n} of darknet={options['name']}, "
            "which has other filters there"
        )
    return start


def _cut(program: Program, options: dict[str, Any], source: Path, n: int, target: Path) -> None:
    cfg = pretrained_cfg(options, source)
    sections = read_cfg(cfg)
    count = len(layers(sections))
    if not 0 < n <= count:
        raise InputError(f"darknet.pretrained_layers={n}: {cfg} has {count} layers")
    available = whole_layers(source, sections)
    if available < n:
        raise InputError(f"darknet.pretrained={source}: holds {available} layers of {cfg}, not {n}")
    arguments = partial_command(program, cfg.resolve(), source.resolve(), target.resolve(), n)
    finished = run(arguments, target.parent, target.parent / "partial.log", lambda line: None)
    if not target.is_file():
        raise InputError(f"darknet partial wrote no {target}: {explain(finished)}")
    if (written := whole_layers(target, sections)) < n:
        raise InputError(f"darknet partial wrote only {written} of {n} layers to {target} (disk full?)")
