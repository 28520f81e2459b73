"""Which options of a cfg the networks made here know: what would change a net and is not built is refused."""

from fer.darknet.formats import dialects
from fer.darknet.formats.cfg import Section
from fer.errors import InputError

# Options that are read here or, of [yolo] and [cost], by the losses; of the others only the value that changes nothing
# is taken. All the programs know of [net] is for training.
_READ = {
    "convolutional": "filters size stride pad padding groups activation batch_normalize",
    "connected": "output activation batch_normalize",
    "maxpool": "size stride padding",
    "softmax": "temperature",
    "cost": "type scale",
    "route": "layers groups group_id",
    "shortcut": "from activation",
    "upsample": "stride scale",
    "dropout": "probability",
    "yolo": " ".join((dialects.OPTIONS["yolo"], *dialects.NEWER["yolo"])),
}
_NEUTRAL = {"learning_rate": "1", "groups": "1", "alpha": "1", "beta": "1", "tree": None}


def require_known(section: Section) -> None:
    """Refuse an option that none of the programs knows.

    Raises:
        InputError: naming it and its section's line.
    """
    generic = ("",) if section.kind != "net" else ()
    known: set[str] = set()
    for kind in (section.kind, *generic):
        known.update(dialects.OPTIONS[kind].split(), dialects.NEWER.get(kind, ()))
        known.update(dialects.PJREDDIE_ONLY.get(kind, "").split())
    for option in section.options:
        if option not in known:
            raise InputError(f"{section.where}: {option}= is no option that darknet knows: correct or delete it")


def require_supported(section: Section) -> None:
    """Refuse an option of a layer that none of the programs knows, or that is not supported here.

    Raises:
        InputError: naming it, its section's line and the remedy.
    """
    require_known(section)
    newer = dialects.NEWER[""] | dialects.NEWER.get(section.kind, {})
    for option, value in section.options.items():
        if option in _READ.get(section.kind, "").split():
            continue
        neutral = newer.get(option, _NEUTRAL.get(option, "0"))
        if neutral is not dialects.COSMETIC and value != neutral:
            remedy = f"set {option}={neutral}" if neutral else "delete it"
            raise InputError(f"{section.where}: {option}={value} is not supported with darknet.engine=torch: {remedy}")
