"""Makes a cfg fit a data set and a config: what people get wrong by hand is derived here, and checked."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from fer.darknet.formats.cfg import (
    HEADS,
    Section,
    cell_side,
    head_channels,
    head_classes,
    integer,
    layers,
    numbers,
    require_whole_cells,
    task_of,
)
from fer.errors import InputError

#: Config keys that go to [net] as they are.
NET_KEYS = (
    "batch", "subdivisions", "max_batches", "learning_rate", "momentum", "decay", "burn_in", "policy", "steps",
    "scales", "power", "angle", "saturation", "exposure", "hue", "aspect", "mosaic", "cutmix", "min_crop", "max_crop",
)  # fmt: skip
#: Config keys that go to every [yolo]; a classifier has none.
YOLO_KEYS = ("jitter", "random", "anchors")
#: Config keys that the programs read for classifiers only.
CLASSIFIER_KEYS = ("angle", "aspect", "cutmix", "min_crop", "max_crop")
POLICIES = ("constant", "poly", "steps")

_POSITIVE = ("size", "batch", "subdivisions", "max_batches", "epochs", "learning_rate", "min_crop", "max_crop")


def count_epochs(max_batches: int, batch: int, photos: int) -> float:
    """Return how often each photo is seen in ``max_batches`` iterations: 400,000 of 64 over 283,901 photos are 90.2."""
    return max_batches * batch / photos


def count_iterations(epochs: float, batch: int, photos: int) -> int:
    """Return the iterations that see each photo ``epochs`` times, at least 1; the inverse of ``count_epochs``."""
    return max(1, round(epochs * photos / batch))


def fit(sections: Sequence[Section], config: Mapping[str, Any], classes: int, photos: int) -> list[Section]:
    """Return the sections for ``classes`` and for ``photos`` to train on, with the config's values in them.

    Keys of ``config`` are those of conf/darknet/*.yaml; None, or no such key, leaves what the cfg says. Derived are
    the filters before each [yolo], its classes and the classifier's outputs; max_batches from ``epochs``, which wins;
    steps at 80 and 90 % of a max_batches that is given; min_crop and max_crop in proportion to a size that is given.
    ``anchors`` is a list of width, height, width, ... in pixels of the net's input.

    Raises:
        InputError: values that do not go together, named by their keys.
    """
    config = {key: value for key, value in config.items() if value is not None}
    fitted = [Section(s.kind, dict(s.options), s.line, s.file) for s in sections]
    task, net = task_of(fitted), fitted[0]
    _require_known(config, task)
    if (side := cell_side(fitted)) and config.get("size", side) % side:
        raise InputError(f"darknet.size={config['size']} is no multiple of {side}, as this detector's input must be")
    if "size" in config:
        _resize(net, int(config["size"]))
    for key in NET_KEYS:
        if key in config:
            _put(net, key, config[key])
    _schedule(net, config, photos)
    _adapt_heads(fitted, task, classes)
    for section in fitted:
        if section.kind == "yolo":
            for key in YOLO_KEYS:
                if key in config:
                    _put(section, key, config[key])
        if section.kind in HEADS:
            _require_anchors(section)
    _require_trainable(net, task)
    return fitted


def check(sections: Sequence[Section], classes: int) -> None:
    """Check that a net is whole and made for this number of classes.

    Raises:
        InputError: naming the line, the number found and the number wanted: shapes that do not fit, filters, outputs,
            classes, masks or anchors, a detector's input that 32 does not divide.
    """
    for before, section in zip(sections, sections[1:], strict=False):
        if section.kind in HEADS:
            if (value := head_classes(section)) != classes:
                raise InputError(
                    f"{section.where}: classes={value}, but the names or the net's first head are {classes}"
                )
            expected = head_channels(section, classes)
            if before.kind == "convolutional" and (value := integer(before, "filters", 1)) != expected:
                raise InputError(f"{before.where}: filters={value} before {section.where}, which needs {expected}")
        if section.kind in HEADS and section.kind != "detection":
            _check_boxes(section, classes)
    parsed = layers(sections)
    if task_of(sections) == "detector":
        require_whole_cells(sections)
        return
    last = next(layer for layer in reversed(parsed) if layer.kind == "softmax")
    if prod(last.shape) != classes:
        shape = "x".join(map(str, last.shape))
        raise InputError(f"{last.section.where}: gets {shape} numbers, but there are {classes} names: see filters=")


def _require_anchors(section: Section) -> None:
    """Refuse anchors to train on that are too few; the program takes half a pixel for those that are not there."""
    number = integer(section, "num", 1)
    # and leaves those that are too many
    if (value := len(numbers(section, "anchors"))) < 2 * number:
        raise InputError(
            f"{section.where}: anchors= has {value} numbers, num={number} needs {2 * number}: is there a comma missing?"
        )


def _check_boxes(section: Section, classes: int) -> None:
    number = integer(section, "num", 1)
    if any(mask not in range(number) for mask in numbers(section, "mask")):
        there = len(numbers(section, "anchors")) // 2
        remedy = f": set num={there}, as many as anchors= has" if there > number else ""
        raise InputError(
            f"{section.where}: mask={section.options['mask']} is not within 0 to {number - 1} of num={number}{remedy}"
        )
    counters = numbers(section, "counters_per_class")
    if counters and len(counters) != classes:
        raise InputError(f"{section.where}: counters_per_class= has {len(counters)} numbers, not {classes}: remove it")


def _require_known(config: Mapping[str, Any], task: str) -> None:
    foreign = YOLO_KEYS if task == "classifier" else CLASSIFIER_KEYS
    for key in foreign:
        if config.get(key):
            raise InputError(f"darknet.{key}={config[key]} is nothing that a {task} reads: set it to null")
    for key in _POSITIVE:
        if key in config and config[key] <= 0:
            raise InputError(f"darknet.{key}={config[key]} is not positive")
    if config.get("policy", "steps") not in POLICIES:
        raise InputError(f"darknet.policy={config['policy']} is not one of {', '.join(POLICIES)}")


def _put(section: Section, key: str, value: Any) -> None:
    """Write a config's value; a mixing that is off is left out, as programs that lack it would name it as unused."""
    if key in ("mosaic", "cutmix") and not value:
        section.options.pop(key, None)
    elif isinstance(value, list | tuple):
        section.options[key] = ",".join(map(_text, value))
    else:
        section.options[key] = _text(value)


def _text(value: Any) -> str:
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    return str(value)


def _resize(net: Section, size: int) -> None:
    # the range that photos are resized to before the crop: kept as it was, faces would fall out of a smaller input
    for key in ("min_crop", "max_crop"):
        if key in net.options:
            net.options[key] = str(round(integer(net, key) * size / integer(net, "width")))
    net.options.update(width=str(size), height=str(size))


def _schedule(net: Section, config: Mapping[str, Any], photos: int) -> None:
    options = net.options
    if "epochs" in config:
        options["max_batches"] = str(count_iterations(config["epochs"], integer(net, "batch", 1), photos))
    max_batches = integer(net, "max_batches")
    if options.get("policy") != "steps":
        # the program names what its policy does not read as unused
        options.pop("steps", None)
        options.pop("scales", None)
        return
    if "steps" not in config and ("steps" not in options or {"max_batches", "epochs"} & config.keys()):
        options["steps"] = f"{round(0.8 * max_batches)},{round(0.9 * max_batches)}"
        if "scales" not in config:
            options["scales"] = ".1,.1"
    steps, scales = numbers(net, "steps"), numbers(net, "scales")
    if len(steps) != len(scales):
        raise InputError(
            f"darknet.steps={options['steps']}: {len(steps)} steps and {len(scales)} darknet.scales do not go together"
        )
    if steps != sorted(steps):
        raise InputError(f"darknet.steps={options['steps']} do not rise")


def _adapt_heads(sections: list[Section], task: str, classes: int) -> None:
    if task == "detector":
        for before, section in zip(sections, sections[1:], strict=False):
            if section.kind == "detection":
                raise InputError(f"{section.where}: YOLOv1 is trained by no engine here: give a net with [yolo]")
            if section.kind in HEADS:
                section.options["classes"] = str(classes)
                if before.kind != "convolutional":
                    raise InputError(f"{section.where}: follows a {before.where}, not a [convolutional]")
                before.options["filters"] = str(head_channels(section, classes))
        return
    end = max(i for i, section in enumerate(sections) if section.kind == "softmax")
    for section in reversed(sections[:end]):
        if section.kind in ("convolutional", "connected"):
            section.options["filters" if section.kind == "convolutional" else "output"] = str(classes)
            return
        if section.kind not in ("avgpool", "dropout"):
            break
    raise InputError(f"{sections[end].where}: no [convolutional] or [connected] whose outputs it takes")


def _require_trainable(net: Section, task: str) -> None:
    batch, subdivisions = integer(net, "batch", 1), integer(net, "subdivisions", 1)
    if batch == 1:
        raise InputError(f"{net.where}: batch=1 is for testing; set darknet.batch, such as 64")
    if subdivisions < 1 or batch % subdivisions:
        raise InputError(f"darknet.batch={batch} does not divide by darknet.subdivisions={subdivisions}")
    burn_in, max_batches = integer(net, "burn_in", 0), integer(net, "max_batches")
    if burn_in >= max_batches:
        raise InputError(
            f"darknet.burn_in={burn_in} is not below max_batches={max_batches}: "
            f"set darknet.burn_in={max_batches // 20}, for example"
        )
    if task == "classifier" and "max_crop" in net.options:
        min_crop, max_crop = integer(net, "min_crop", integer(net, "width")), integer(net, "max_crop")
        if min_crop > max_crop:
            raise InputError(f"darknet.min_crop={min_crop} is above darknet.max_crop={max_crop}")
