"""Darknet's .cfg files: text to sections and back, and the layers that they make, by the program's rules."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from pathlib import Path

from fer.darknet.formats.section import Section, integer, integers, numbers, positive
from fer.errors import InputError

Shape = tuple[int, int, int]

# The program knows some kinds by two names.
_SHORT_NAMES = {
    "network": "net", "conv": "convolutional", "max": "maxpool", "avg": "avgpool", "soft": "softmax",
    "conn": "connected", "local_avg": "local_avgpool",
}  # fmt: skip

#: Kinds of the layers that say what is where in a photo.
HEADS = ("yolo", "Gaussian_yolo", "region", "detection")

# What the program has beside these, for text and video, and for nets that none of its detectors and classifiers is.
_RECURRENT = ("rnn", "gru", "lstm", "crnn", "conv_lstm", "history")
_ELSEWHERE = (
    "lrn", "normalization", "activation", "deconvolutional", "deconv", "iseg", "implicit", "empty", "silence", "l2norm",
    "logxent",
)  # fmt: skip

# Options that change a layer's shape or its weights in ways that no cfg of the programs needs.
_REFUSED = ("antialiasing", "maxpool_depth")

# A pooling may reach so much farther than twice its input, which spatial pyramids of small inputs do.
_MAX_WINDOW = 64
#: Boxes a cell; real nets have up to 15.
_MOST_BOXES = 1000


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer as the program counts them, from 0 and without [net]; see `layers`."""

    index: int
    kind: str
    shape: Shape
    floats: int
    section: Section


def read_cfg(path: Path) -> list[Section]:
    """Return the sections of a .cfg file, in UTF-8 or, with a byte order mark, UTF-16; bytes of neither become "?".

    Raises:
        InputError: as `parse`, or a file that cannot be read.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    return parse(data.decode("utf-16" if wide else "utf-8", errors="replace"), str(path))


def parse(text: str, name: str = "cfg") -> list[Section]:
    """Return the sections of a cfg; ``name`` is the file in messages.

    As in the program blanks are removed, also within values, and the first of a repeated key counts. Everything from a
    "#" on is a comment; the program wants comments on lines of their own, but its numbers end there too.

    Raises:
        InputError: a line that is no section, option or comment, an unknown kind, a cfg that does not begin with [net].
    """
    sections: list[Section] = []
    # a byte order mark, as some editors write it
    for number, line in enumerate(text.removeprefix("\ufeff").splitlines(), 1):
        line = re.sub(r"\s", "", line).split("#")[0]
        if not line or line.startswith(";"):
            continue
        if not sections and line not in ("[net]", "[network]"):
            raise InputError(f"{name}:{number}: {line} comes first; a cfg begins with [net]")
        key, equals, value = line.partition("=")
        if header := re.fullmatch(r"\[(\w+)\]", line):
            kind = _SHORT_NAMES.get(header[1], header[1])
            if kind != "net" and kind not in _SHAPES:
                raise InputError(f"{name}:{number}: {_unknown(kind)}")
            sections.append(Section(kind, {}, number, name))
        elif not key or not equals or not value:
            raise InputError(f"{name}:{number}: {line!r} is no [section], key=value or # comment")
        else:
            sections[-1].options.setdefault(key, value)
    if not sections:
        raise InputError(f"{name}: holds no section; a cfg begins with [net]")
    return sections


def render(sections: Sequence[Section]) -> str:
    """Return the text of a cfg, which ``parse`` turns into the same sections again."""
    blocks = []
    for section in sections:
        blocks.append(f"[{section.kind}]\n" + "".join(f"{key}={value}\n" for key, value in section.options.items()))
    return "\n".join(blocks)


def head_classes(section: Section) -> int:
    """Return the classes of a head, by default the program's own number."""
    return integer(section, "classes", 1 if section.kind == "detection" else 20)


def head_channels(section: Section, classes: int | None = None) -> int:
    """Return the channels that a head needs from the layer before.

    Those are classes + 5 a box, of a [Gaussian_yolo] + 9; of a [detection], whose cells are numbers in a row, all of
    the cells' classes and (coords + 1) a box.
    """
    classes = head_classes(section) if classes is None else classes
    boxes = positive(section, "num", 1)
    if boxes > _MOST_BOXES:
        raise InputError(f"{section.where}: num={boxes} are more than {_MOST_BOXES:,} boxes a cell")
    if section.kind == "detection":
        return positive(section, "side", 7) ** 2 * ((1 + integer(section, "coords", 1)) * boxes + classes)
    if section.kind == "region":
        return boxes * (classes + integer(section, "coords", 4) + 1)
    return (len(numbers(section, "mask")) or boxes) * (classes + (5 if section.kind == "yolo" else 9))


def task_of(sections: Sequence[Section]) -> str:
    """Return "detector" for nets with one of `HEADS`, "classifier" for those with a [softmax].

    Raises:
        InputError: neither is there.
    """
    kinds = {section.kind for section in sections}
    if kinds & set(HEADS):
        return "detector"
    if "softmax" in kinds:
        return "classifier"
    raise InputError(
        f"{sections[0].file or 'cfg'}: no [yolo], [region] or [softmax], so neither detector nor classifier"
    )


def classes_of(sections: Sequence[Section]) -> int:
    """Return the number of classes that a net tells apart."""
    heads = [section for section in sections if section.kind in HEADS]
    if heads:
        return head_classes(heads[0])
    return prod(next(layer.shape for layer in reversed(layers(sections)) if layer.kind == "softmax"))


def input_shape(sections: Sequence[Section]) -> Shape:
    """Return the width, height and channels of a net's input.

    Raises:
        InputError: one of them is missing or not positive.
    """
    net = sections[0]
    return positive(net, "width"), positive(net, "height"), positive(net, "channels")


def layers(sections: Sequence[Section]) -> list[Layer]:
    """Return the layers of a net with their output shapes (width, height, channels) and the floats each has in a file.

    A .weights file holds, layer by layer, float32: a convolution's biases, with batch normalisation scales, means and
    variances, and filters x channels / groups x size x size weights; a connected layer's the same way.

    Raises:
        InputError: what the program would abort on or get wrong: no input size, a layer that reaches outside the net,
            shapes that do not fit, an option that is not supported here.
    """
    if not sections or sections[0].kind != "net":
        raise InputError("a cfg begins with [net]")
    net, shape = sections[0], input_shape(sections)
    parsed: list[Layer] = []
    for section in sections[1:]:
        if section.kind not in _SHAPES:
            raise InputError(f"{section.where}: " + ("comes twice" if section.kind == "net" else "unknown section"))
        for key in _REFUSED:
            if integer(section, key, 0):
                raise InputError(f"{section.where}: {key}= is in no engine here: this net cannot be run or trained")
        try:
            out, floats = _SHAPES[section.kind](section, shape, parsed)
        except InputError:
            require_whole_cells(sections)
            raise
        if min(out) < 1:
            raise InputError(f"{section.where}: its input of {_text(shape)} is too small: raise width= and height=")
        parsed.append(Layer(len(parsed), section.kind, out, floats, section))
        shape = out
    if not parsed:
        raise InputError(f"{net.file or 'cfg'}: [net] is followed by no layer")
    return parsed


def require_whole_cells(sections: Sequence[Section]) -> None:
    """Refuse an input of a detector that its cells do not divide: halves that are rounded do not fit each other.

    Raises:
        InputError: naming the size and the side of the cells.
    """
    net, side = sections[0], cell_side(sections)
    for key in ("width", "height"):
        if integer(net, key) % side:
            raise InputError(f"{net.where}: {key}={net.options[key]} is no multiple of {side}, this net's stride")


def cell_side(sections: Sequence[Section]) -> int:
    """Return the pixels that the input of a detector with cells must be a multiple of, 32 at least; 1 of other nets."""
    cells = any(section.kind in HEADS and section.kind != "detection" for section in sections)
    return max(32, largest_stride(sections)) if cells else 1


def largest_stride(sections: Sequence[Section]) -> int:
    """Return the pixels of the input from one number to the next in the layer where they are most; 64 of yolov4-p6."""
    made: list[Fraction] = []
    for section in sections[1:]:
        before = made[-1] if made else Fraction(1)
        stride = Fraction(positive(section, "stride", 2 if section.kind == "upsample" else 1))
        if section.kind in ("convolutional", "maxpool", "local_avgpool"):
            before *= stride
        elif section.kind in ("reorg", "reorg3d"):
            before = before / stride if _flag(section, "reverse") else before * stride
        elif section.kind == "upsample":
            before /= stride
        elif section.kind in ("route", "scale_channels"):
            # a layer that is not there is named where it is built
            named = integers(section, "layers" if section.kind == "route" else "from")
            index = named[0] + (len(made) if named[0] < 0 else 0) if named else 0
            before = made[index] if 0 <= index < len(made) else before
        made.append(before)
    return max((int(stride) for stride in made), default=1)


def _unknown(kind: str) -> str:
    if kind in _RECURRENT:
        return (
            f"[{kind}] remembers what came before, for text or video: neither engine trains or runs a net with it; "
            "give the cfg of a detector or classifier of photos"
        )
    if kind in _ELSEWHERE:
        return f"[{kind}] is a layer of darknet that is in neither engine here: give a cfg without it"
    return f"unknown section [{kind}]; known: {', '.join(_SHAPES)}"


def strides(section: Section) -> tuple[int, int]:
    """Return a layer's strides to the right and down; as in the program stride_x= and stride_y= go before stride=."""
    stride = positive(section, "stride", 1)
    return positive(section, "stride_x", stride), positive(section, "stride_y", stride)


def _flag(section: Section, key: str) -> bool:
    return integer(section, key, 0) != 0


def _scaled(shape: Shape, factor: int) -> Shape:
    return shape[0] * factor, shape[1] * factor, shape[2]


def _text(shape: Shape) -> str:
    return "x".join(map(str, shape))


def _sources(section: Section, key: str, parsed: list[Layer]) -> list[Layer]:
    """Return the layers that an option names: from 0, or counted back from this one where negative."""
    sources = []
    for number in integers(section, key):
        index = number if number >= 0 else len(parsed) + number
        if not 0 <= index < len(parsed):
            raise InputError(
                f"{section.where}: {key}={section.options[key]} is outside of layers 0 to {len(parsed) - 1}"
            )
        sources.append(parsed[index])
    if not sources:
        raise InputError(f"{section.where}: needs {key}=")
    return sources


def _convolutional(section: Section, shape: Shape, parsed: list[Layer]) -> tuple[Shape, int]:
    width, height, channels = shape
    filters, size, groups = (positive(section, key, 1) for key in ("filters", "size", "groups"))
    padding = size // 2 if _flag(section, "pad") else integer(section, "padding", 0)
    if channels % groups or filters % groups:
        raise InputError(f"{section.where}: groups={groups} do not divide {channels} channels and filters={filters}")
    floats = filters * (4 if _flag(section, "batch_normalize") else 1) + filters * channels // groups * size * size
    if "share_index" in section.options:
        source = _sources(section, "share_index", parsed)[0]
        if source.kind != "convolutional" or source.floats != floats or source.shape[2] != filters:
            raise InputError(f"{section.where}: share_index={source.index} is no convolution with weights as these")
        floats = 0
    width, height = (
        (length + 2 * padding - size) // stride + 1
        for length, stride in zip((width, height), strides(section), strict=True)
    )
    return (width, height, filters), floats


def _maxpool(section: Section, shape: Shape, parsed: list[Layer]) -> tuple[Shape, int]:
    stride = positive(section, "stride", 1)
    size = positive(section, "size", stride)
    padding = integer(section, "padding", size - 1)
    if max(size, padding) > _MAX_WINDOW + 2 * max(shape[:2]):
        raise InputError(f"{section.where}: size={size} and padding={padding} reach too far beyond {_text(shape)}")
    width, height = (
        (length + padding - size) // stride + 1 for length, stride in zip(shape[:2], strides(section), strict=True)
    )
    return (width, height, shape[2]), 0


def _connected(section: Section, shape: Shape, parsed: list[Layer]) -> tuple[Shape, int]:
    output = positive(section, "output", 1)
    return (1, 1, output), output * (4 if _flag(section, "batch_normalize") else 1) + output * prod(shape)


def _route(section: Section, shape: Shape, parsed: list[Layer]) -> tuple[Shape, int]:
    sources = _sources(section, "layers", parsed)
    width, height, _ = sources[0].shape
    channels, groups = sum(source.shape[2] for source in sources), positive(section, "groups", 1)
    if any(source.shape[:2] != (width, height) for source in sources):
        shapes = ", ".join(f"{source.index}: {_text(source.shape)}" for source in sources)
        raise InputError(f"{section.where}: joins layers of different width and height ({shapes})")
    if channels % groups or not 0 <= integer(section, "group_id", 0) < groups:
        raise InputError(f"{section.where}: groups={groups} and group_id do not fit {channels} channels")
    return (width, height, channels // groups), 0


def _shortcut(section: Section, shape: Shape, parsed: list[Layer]) -> tuple[Shape, int]:
    sources = _sources(section, "from", parsed)
    for source in sources:
        # ResNet's add with a stride, which AlexeyAB's program refuses, needs one ratio for width and height
        if source.shape[0] * shape[1] != source.shape[1] * shape[0]:
            raise InputError(f"{section.where}: adds layer {source.index} of {_text(source.shape)} to {_text(shape)}")
    weights = {"none": 0, "per_feature": 1, "per_layer": 1, "per_channel": shape[2]}
    kind = section.options.get("weights_type", "none")
    if kind not in weights:
        raise InputError(f"{section.where}: weights_type={kind} is not one of {', '.join(weights)}")
    return shape, weights[kind] * (len(sources) + 1)


def _reorg(section: Section, shape: Shape, parsed: list[Layer]) -> tuple[Shape, int]:
    width, height, channels = shape
    stride = positive(section, "stride", 1)
    if _flag(section, "reverse"):
        return (width * stride, height * stride, channels // stride**2), 0
    return (width // stride, height // stride, channels * stride**2), 0


def _head(section: Section, shape: Shape, parsed: list[Layer]) -> tuple[Shape, int]:
    needed = head_channels(section)
    if shape[2] != needed:
        before = parsed[-1].section.where if parsed else "the input"
        each = 9 if section.kind == "Gaussian_yolo" else 5
        raise InputError(
            f"{before}: {shape[2]} channels (filters=), but the [{section.kind}] after it needs {needed}"
            f" = (classes + {each}) * {needed // (head_classes(section) + each)} boxes"
        )
    return shape, 0


def _detection(section: Section, shape: Shape, parsed: list[Layer]) -> tuple[Shape, int]:
    needed = head_channels(section)
    if prod(shape) != needed:
        before = parsed[-1].section.where if parsed else "the input"
        raise InputError(f"{before}: {prod(shape)} numbers (output=), but the [detection] after it needs {needed}")
    return shape, 0


def _local(section: Section, shape: Shape, parsed: list[Layer]) -> tuple[Shape, int]:
    width, height, channels = shape
    filters, size, stride = (positive(section, key, 1) for key in ("filters", "size", "stride"))
    padding = integer(section, "pad", 0)
    width, height = ((length - (1 if padding else size)) // stride + 1 for length in (width, height))
    if (width, height) != tuple((length + 2 * padding - size) // stride + 1 for length in shape[:2]):
        raise InputError(f"{section.where}: pad={padding} with size={size} reads beyond its input in the program")
    return (width, height, filters), width * height * filters * (1 + size * size * channels)


def _scale_channels(section: Section, shape: Shape, parsed: list[Layer]) -> tuple[Shape, int]:
    source = _sources(section, "from", parsed)[0]
    spatial = _flag(section, "scale_wh")
    if shape != ((*source.shape[:2], 1) if spatial else (1, 1, source.shape[2])):
        raise InputError(f"{section.where}: scales layer {source.index} of {_text(source.shape)} by {_text(shape)}")
    return source.shape, 0


def _sam(section: Section, shape: Shape, parsed: list[Layer]) -> tuple[Shape, int]:
    source = _sources(section, "from", parsed)[0]
    if shape != source.shape:
        raise InputError(f"{section.where}: multiplies layer {source.index} of {_text(source.shape)} by {_text(shape)}")
    return shape, 0


def _crop(section: Section, shape: Shape, parsed: list[Layer]) -> tuple[Shape, int]:
    width, height = (positive(section, key, 1) for key in ("crop_width", "crop_height"))
    if width > shape[0] or height > shape[1]:
        raise InputError(f"{section.where}: cuts {width}x{height} out of {_text(shape)}: make the input larger")
    return (width, height, shape[2]), 0


def _same(section: Section, shape: Shape, parsed: list[Layer]) -> tuple[Shape, int]:
    return shape, 0


_SHAPES: dict[str, Callable[[Section, Shape, list[Layer]], tuple[Shape, int]]] = {
    "convolutional": _convolutional,
    "maxpool": _maxpool,
    "avgpool": lambda section, shape, parsed: ((1, 1, shape[2]), 0),
    "softmax": _same,
    "cost": _same,
    "route": _route,
    "shortcut": _shortcut,
    "upsample": lambda section, shape, parsed: (_scaled(shape, positive(section, "stride", 2)), 0),
    "yolo": _head,
    "Gaussian_yolo": _head,
    "region": _head,
    "detection": _detection,
    "reorg": _reorg,
    "reorg3d": _reorg,
    "dropout": _same,
    "crop": _crop,
    "connected": _connected,
    "local": _local,
    "local_avgpool": _maxpool,
    "batchnorm": lambda section, shape, parsed: (shape, 4 * shape[2]),
    "scale_channels": _scale_channels,
    "sam": _sam,
    "contrastive": _same,
}
