"""Which options of a cfg the networks made here know: what would change a net and is not built is refused."""

from collections.abc import Iterator

from fer.darknet.formats.cfg import Section
from fer.darknet.formats.option_table import OPTIONS, known_options
from fer.errors import InputError

#: Options that are read here or, of heads and [cost], by the losses; of the others only the value that changes nothing
#: is taken. All the programs know of [net] is for training.
_READ = {
    "convolutional": {
        "filters", "size", "stride", "stride_x", "stride_y", "pad", "padding", "groups", "dilation", "activation",
        "batch_normalize", "share_index",
    },
    "connected": {"output", "activation", "batch_normalize"},
    "local": {"filters", "size", "stride", "pad", "activation"},
    "maxpool": {"size", "stride", "stride_x", "stride_y", "padding"},
    "local_avgpool": {"size", "stride", "stride_x", "stride_y", "padding"},
    "softmax": {"temperature"},
    "cost": {"type", "scale"},
    "route": {"layers", "groups", "group_id"},
    "shortcut": {"from", "activation"},
    "upsample": {"stride", "scale"},
    "reorg": {"stride", "reverse"},
    "reorg3d": {"stride", "reverse"},
    "scale_channels": {"from", "activation", "scale_wh"},
    "sam": {"from", "activation"},
    "crop": set(OPTIONS["crop"]),
    "dropout": {"probability"},
    "yolo": set(OPTIONS["yolo"]),
    "Gaussian_yolo": set(OPTIONS["Gaussian_yolo"]),
    "region": set(OPTIONS["region"]) - {"background", "coords"},
    "detection": set(OPTIONS["detection"]) - {"coords", "reorg"},
    # nothing of it is done outside of training
    "contrastive": set(OPTIONS["contrastive"]),
}  # fmt: skip
#: Kinds of layers that are run and not trained.
_UNTRAINED = ("Gaussian_yolo", "region", "detection", "local", "contrastive")
#: The value of an option of all programs that changes nothing, where it is not 0.
_NEUTRAL = {"learning_rate": "1", "groups": "1", "alpha": "1", "beta": "1", "tree": None, "coords": "4"}


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
    """Refuse an option of a layer that none of the programs knows, or that makes another net than is built here.

    Raises:
        InputError: naming it, its section's line and the remedy.
    """
    require_known(section)
    for name, value in _not_read(section):
        known = known_options(section.kind) or {}
        if known[name].training:
            continue
        if name == "xnor":
            raise InputError(
                f"{section.where}: xnor=1 is a net of one bit a weight, which darknet.engine=torch does not run: "
                "set darknet.engine=binary, or give the cfg and weights of the net without xnor="
            )
        raise InputError(
            f"{section.where}: {name}={value} is not supported with darknet.engine=torch, and weights trained with it "
            "need it: set darknet.engine=binary"
        )


def require_trained(section: Section) -> None:
    """Refuse a layer, or an option that changes its training only, of which no training is built here.

    Raises:
        InputError: naming it, its section's line and the remedy.
    """
    if section.kind in _UNTRAINED:
        raise InputError(f"{section.where}: is not trained with darknet.engine=torch: set darknet.engine=binary")
    for name, value in _not_read(section):
        if name != "stopbackward":
            remedy = f"set {name}={_neutral(section, name)}"
            raise InputError(f"{section.where}: {name}={value} is not trained with darknet.engine=torch: {remedy}")


def _neutral(section: Section, name: str) -> str | None:
    option = (known_options(section.kind) or {})[name]
    return option.neutral if option.later else _NEUTRAL.get(name, "0")


def _not_read(section: Section) -> Iterator[tuple[str, str]]:
    """Yield name and value of what is not read here and does not ask for nothing."""
    known = known_options(section.kind) or {}
    for name, value in section.options.items():
        if known[name].cosmetic or name in _READ.get(section.kind, ()):
            continue
        if value != _neutral(section, name):
            yield name, value
