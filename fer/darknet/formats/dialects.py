"""The three darknet programs: how each is known, and its commands, flags, layers and values.

Debian's was given each option and said which it leaves unused; of those in [net] it says nothing, they were read in its
source, as all else was.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Dialect:
    """One of the programs, its tables by task ("classifier", "detector"); a task without an entry is not there.

    ``marks`` are strings that its file holds, every one of them, and no other program's holds all. All three are linked
    from objects, so that they stand in the program itself and not in a libdarknet. ``train_flags`` can be set on a
    training run; other flags never reach a program, because Debian's takes an unknown flag for the weights file and
    exits with 0. ``missing_layers`` are kinds of `fer.darknet.formats.cfg` that it lacks. ``values`` are those of an
    option, by (kind, option), where "" is any kind; it takes another for one that it doesn't know. ``answer`` is what a
    training must read on standard input to begin. ``follows_links`` tells that its `detector map` looks for labels
    beside the file that a link leads to. ``verbose`` is the flag without which it doesn't say that it read the weights.
    """

    title: str
    marks: tuple[bytes, ...]
    actions: Mapping[str, frozenset[str]]
    train_flags: Mapping[str, frozenset[str]]
    missing_layers: frozenset[str] = frozenset()
    values: Mapping[tuple[str, str], frozenset[str]] = field(default_factory=dict)
    answer: str | None = None
    follows_links: bool = False
    verbose: str | None = None

    def known_values(self, kind: str, option: str) -> frozenset[str] | None:
        """Return the values that the program knows of an option, None where it takes any."""
        return self.values.get((kind, option), self.values.get(("", option)))


_ACTIVATIONS = frozenset((
    "logistic", "loggy", "relu", "elu", "selu", "relie", "plse", "hardtan", "lhtan", "linear", "ramp", "leaky", "tanh",
    "stair",
))  # fmt: skip
_NEWER_ACTIVATIONS = _ACTIVATIONS | {
    "swish", "mish", "hard_mish", "gelu", "relu6", "revleaky", "normalize_channels", "normalize_channels_softmax",
    "normalize_channels_softmax_maxval",
}  # fmt: skip
_POLICIES = frozenset(("random", "poly", "constant", "step", "exp", "sigmoid", "steps"))

DIALECTS = {
    "pjreddie": Dialect(
        title="Debian's darknet of 2018",
        marks=(b"Not an option: %s\n", b"-fullscreen", b"isegmenter"),
        # its `detector test` opens a window on every photo and waits for a key
        actions={
            "classifier": frozenset(("train", "valid", "predict")),
            "detector": frozenset(("train", "valid")),
        },
        train_flags={"classifier": frozenset(("clear", "gpus")), "detector": frozenset(("clear", "gpus"))},
        missing_layers=frozenset(
            (
                "reorg3d",
                "Gaussian_yolo",
                "local_avgpool",
                "scale_channels",
                "sam",
                "contrastive",
            )
        ),  # fmt: skip
        values={
            ("", "activation"): _ACTIVATIONS,
            ("net", "policy"): _POLICIES,
            ("cost", "type"): frozenset(("seg", "sse", "masked", "smooth", "L1", "wgan")),
        },
    ),
    "alexeyab": Dialect(
        title="AlexeyAB's darknet",
        marks=(b"-mjpeg_port", b"darknet detector calc_anchors", b"(next TOP%d calculation"),
        actions={
            "classifier": frozenset(("train", "valid", "predict")),
            "detector": frozenset(("train", "valid", "test", "map")),
        },
        train_flags={
            "classifier": frozenset(("clear", "gpus", "dont_show", "mjpeg_port")),
            "detector": frozenset(("clear", "gpus", "dont_show", "mjpeg_port", "map")),
        },
        values={
            ("", "activation"): _NEWER_ACTIVATIONS,
            ("net", "policy"): _POLICIES | {"sgdr"},
            ("cost", "type"): frozenset(("sse", "masked", "smooth")),
        },
    ),
    "hank": Dialect(
        title="hank-ai's darknet",
        marks=(b", time remaining=", b"is unused or invalid: ", b"calcanchors"),
        actions={"detector": frozenset(("train", "valid", "test", "map"))},
        train_flags={"detector": frozenset(("clear", "gpus", "dont_show", "map"))},
        missing_layers=frozenset(("crop", "local", "detection", "reorg", "batchnorm")),
        values={("", "activation"): _NEWER_ACTIVATIONS, ("net", "policy"): _POLICIES | {"sgdr"}},
        # a build for the CPU asks whether one is certain
        answer="yes\n",
        follows_links=True,
        verbose="-verbose",
    ),
}
