"""Which options of a cfg the networks made here know: what would change a net and is not built is refused."""

from fer.darknet.formats.cfg import Section
from fer.darknet.formats.option_table import OPTIONS, known_options
from fer.errors import InputError

#: Options that are read here or, of [yolo] and [cost], by the losses; of the others only the value that changes nothing
#: is taken. All the programs know of [net] is for training.
_READ = {
    "convolutional": {"filters", "size", "stride", "pad", "padding", "groups", "activation", "batch_normalize"},
    "connected": {"output", "activation", "batch_normalize"},
    "maxpool": {"size", "stride", "padding"},
    "softmax": {"temperature"},
    "cost": {"type", "scale"},
    "route": {"layers", "groups", "group_id"},
    "shortcut": {"from", "activation"},
    "upsample": {"stride", "scale"},
    "dropout": {"probability"},
    "yolo": set(OPTIONS["yolo"]),
}
#: The value of an option of all programs that changes nothing, where it is not 0.
_NEUTRAL = {"learning_rate": "1", "groups": "1", "alpha": "1", "beta": "1", "tree": None}


def require_known(section: Section) -> None:
    """Refuse an option that none of the programs knows.

    Raises:
        InputError: naming it and its section's line.
    """
    known = known_options(section.kind) or {}
    for name in section.options:
        if name not in known:
            raise InputError(f"{section.where}: {name}= is no option that darknet knows: correct or delete it")


def require_supported(section: Section) -> None:
    """Refuse an option of a layer that none of the programs knows, or that is not supported here.

    Raises:
        InputError: naming it, its section's line and the remedy.
    """
    require_known(section)
    known = known_options(section.kind) or {}
    for name, value in section.options.items():
        option = known[name]
        if option.cosmetic or name in _READ.get(section.kind, ()):
            continue
        neutral = option.neutral if option.later else _NEUTRAL.get(name, "0")
        if value != neutral:
            remedy = f"set {name}={neutral}" if neutral else "delete it"
            raise InputError(f"{section.where}: {name}={value} is not supported with darknet.engine=torch: {remedy}")
