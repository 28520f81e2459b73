"""The options of a cfg's sections, and which of the three programs reads each."""

from dataclasses import dataclass

_ALL = frozenset(("pjreddie", "alexeyab", "hank"))
#: AlexeyAB's and its offspring; what they added since Debian's of 2018.
_LATER = frozenset(("alexeyab", "hank"))


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a section; ``programs`` are those that read it.

    Of one that came later, ``neutral`` is the value that asks for what Debian's does anyway, None where there is none.
    It is ``cosmetic`` where it changes speed, memory, charts or object tracking, never the net or its training, and for
    ``training`` where a trained net is used without it.
    """

    programs: frozenset[str] = _ALL
    neutral: str | None = None
    cosmetic: bool = False
    training: bool = False

    @property
    def later(self) -> bool:
        """Whether it came after Debian's of 2018."""
        return "pjreddie" not in self.programs

    def is_neutral(self, value: str) -> bool:
        """Whether a value makes no difference to a program that does not read the option."""
        if self.cosmetic or self.neutral is None:
            return self.cosmetic
        try:
            return float(value) == float(self.neutral)
        except ValueError:
            return value == self.neutral


def known_options(kind: str) -> dict[str, Option] | None:
    """Return the options of a section by name, with those of any layer; None for a kind of which nothing is known."""
    if kind not in OPTIONS:
        return None
    return OPTIONS[kind] if kind == "net" else OPTIONS[kind] | ANY_LAYER


def _read(*names: str) -> dict[str, Option]:
    return dict.fromkeys(names, Option())


def _debians(*names: str) -> dict[str, Option]:
    return dict.fromkeys(names, Option(programs=frozenset(("pjreddie",))))


def _later(neutral: str | None, *names: str, training: bool = False) -> dict[str, Option]:
    return dict.fromkeys(names, Option(_LATER, neutral, training=training))


def _cosmetic(*names: str, training: bool = False) -> dict[str, Option]:
    return dict.fromkeys(names, Option(_LATER, cosmetic=True, training=training))


def _unread(*names: str) -> dict[str, Option]:
    """Return options that cfgs of the programs' own have and none of them reads."""
    return dict.fromkeys(names, Option(frozenset(), cosmetic=True))


#: Of any layer, not of [net].
ANY_LAYER = (
    _read("dontload", "dontloadscales")
    | dict.fromkeys(("stopbackward", "onlyforward", "learning_rate"), Option(training=True))
    | _debians("truth", "dontsave", "numload", "smooth")
    | _later("0", "dont_update", "burnin_update", "train_only_bn", "clip", training=True)
)
#: Of the heads that AlexeyAB's program has beside Debian's: how a box is trained, and which of several stay.
_LATER_HEAD = (
    _later("1", "scale_x_y")
    | _later("default", "nms_kind")
    | _later("0", "objectness_smooth", "label_smooth_eps", training=True)
    | _later("mse", "iou_loss", training=True)
    | _later("iou", "iou_thresh_kind", training=True)
    | _later(
        "1", "iou_thresh", "iou_normalizer", "obj_normalizer", "cls_normalizer", "delta_normalizer", "resize",
        training=True,
    )
    | _later(None, "max_delta", "counters_per_class", training=True)
    | _cosmetic("beta_nms", training=True)
)  # fmt: skip
#: By kind of section.
OPTIONS: dict[str, dict[str, Option]] = {
    "net": _read(
        "batch", "subdivisions", "max_batches", "learning_rate", "momentum", "decay", "time_steps", "adam", "B1", "B2",
        "eps", "height", "width", "channels", "inputs", "angle", "aspect", "saturation", "exposure", "hue", "policy",
        "burn_in", "power", "step", "scale", "steps", "scales", "gamma",
    )
    | _debians("notruth", "random", "max_ratio", "min_ratio", "center", "clip")
    | _unread("seen", "max_epochs")
    # hank-ai's ends at these, which were for its former classifiers
    | dict.fromkeys(("max_crop", "min_crop"), Option(_ALL - {"hank"}))
    | {"unsupervised": Option(_LATER - {"hank"}, "0", training=True)}
    | _later(
        "0", "mosaic", "cutmix", "mixup", "mosaic_bound", "blur", "gaussian_noise", "label_smooth_eps", "ema_alpha",
        "contrastive", "contrastive_jit_flip", "contrastive_color", "attention", "adversarial_lr", "dynamic_minibatch",
        "try_fix_nan", "weights_reject_freq", "equidistant_point", "badlabels_rejection_percentage",
        "num_sigmas_reject_badlabels", "track", training=True,
    )
    | _later("1", "flip", training=True)
    | _later("32", "resize_step", training=True)
    | _later(None, "sequential_subdivisions", "seq_scales", training=True)
    | _later("1", "letter_box")
    | _cosmetic(
        "learning_rate_min", "sgdr_cycle", "sgdr_mult", "augment_speed", "use_cuda_graph", "loss_scale",
        "optimized_memory", "workspace_size_limit_MB", "max_chart_loss", "show_receptive_field", training=True,
    ),
    "convolutional": _read(
        "filters", "size", "stride", "pad", "padding", "groups", "activation", "batch_normalize", "binary", "xnor",
        "flipped", "dot",
    )
    | _later(
        "0", "antialiasing", "cbn", "bin_output", "sway", "rotate", "stretch", "stretch_sway", "reverse", "coordconv",
    )
    | _later("0", "assisted_excitation", "grad_centr", training=True)
    | _later("1", "dilation")
    | _later(None, "stride_x", "stride_y", "share_index")
    | _cosmetic("angle", "stream", "wait_stream"),
    "maxpool": _read("size", "stride", "padding")
    | _later(None, "stride_x", "stride_y")
    | _later("0", "maxpool_depth", "antialiasing", "maxpool_zero_nonmax")
    | _later("1", "out_channels"),
    "avgpool": {},
    "softmax": _read("groups", "temperature", "tree", "spatial", "noloss"),
    "cost": _read("type", "scale", "ratio") | _debians("thresh"),
    "route": _read("layers") | _later("1", "groups") | _later("0", "group_id") | _cosmetic("stream", "wait_stream"),
    "shortcut": _read("from", "activation")
    | _debians("alpha", "beta")
    | _later("none", "weights_type", "weights_normalization"),
    "upsample": _read("stride", "scale"),
    "dropout": _read("probability")
    | _later("0", "dropblock", training=True)
    | _cosmetic("dropblock_size_rel", "dropblock_size_abs", training=True),
    "connected": _read("output", "activation", "batch_normalize"),
    "crop": _read("crop_height", "crop_width", "flip", "angle", "saturation", "exposure", "noadjust", "shift"),
    "yolo": _read(
        "mask", "anchors", "classes", "num", "jitter", "ignore_thresh", "truth_thresh", "random", "max", "map"
    )
    | _LATER_HEAD
    | _unread("uc_normalizer", "beta1")
    | _later("0", "new_coords")
    | _later("0", "focal_loss", training=True)
    | _later(None, "embedding_layer", training=True)
    # hank-ai's always shows them, and ends at the option
    | {"show_details": Option(_LATER - {"hank"}, cosmetic=True, training=True)}
    | _cosmetic(
        "track_history_size", "sim_thresh", "dets_for_track", "dets_for_show", "track_ciou_norm",
        training=True,
    ),
    "Gaussian_yolo": _later(
        None, "mask", "anchors", "classes", "num", "jitter", "ignore_thresh", "truth_thresh", "random", "max", "map",
        "uc_normalizer",
    )
    | _LATER_HEAD
    | _later("center", "yolo_point"),
    "region": _read(
        "anchors", "classes", "coords", "num", "softmax", "tree", "max", "map", "log", "sqrt", "jitter", "rescore",
        "thresh", "classfix", "absolute", "random", "coord_scale", "object_scale", "noobject_scale", "mask_scale",
        "class_scale", "bias_match",
    )
    | _debians("background")
    | _later("0", "focal_loss", training=True)
    | _later("1", "resize", training=True),
    "detection": _read(
        "classes", "coords", "side", "num", "softmax", "sqrt", "rescore", "max", "forced", "coord_scale",
        "object_scale", "noobject_scale", "class_scale", "jitter", "random", "reorg",
    )
    | _later("1", "resize", training=True),
    "reorg": _read("stride", "reverse") | _debians("flatten", "extra"),
    "reorg3d": _later(None, "stride", "reverse"),
    "local": _read("filters", "size", "stride", "pad", "activation"),
    "local_avgpool": _later(None, "size", "stride", "stride_x", "stride_y", "padding"),
    "batchnorm": {},
    "scale_channels": _later(None, "from", "activation") | _later("0", "scale_wh"),
    "sam": _later(None, "from", "activation"),
    "contrastive": _later(
        None, "classes", "temperature", "yolo_layer", "cls_normalizer", "max_delta", "contrastive_neg_max",
    ),
}  # fmt: skip
