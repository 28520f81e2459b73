"""What each of the three darknet programs has: commands, flags, layers, activations and options, as plain tables."""

#: What can be set on a training run; other flags never reach a program, because Debian's takes an unknown flag for the
#: weights file and exits with 0.
TRAIN_FLAGS = {
    "pjreddie": {"classifier": {"clear", "gpus"}, "detector": {"clear", "gpus"}},
    "alexeyab": {
        "classifier": {"clear", "gpus", "dont_show", "mjpeg_port"},
        "detector": {"clear", "gpus", "dont_show", "mjpeg_port", "map"},
    },
    "hank": {"detector": {"clear", "gpus", "dont_show", "map"}},
}
#: Debian's `detector test` opens a window on every photo and waits for a key.
ACTIONS = {
    "pjreddie": {"classifier": {"train", "valid", "predict"}, "detector": {"train", "valid"}},
    "alexeyab": {"classifier": {"train", "valid", "predict"}, "detector": {"train", "valid", "test", "map"}},
    "hank": {"detector": {"train", "valid", "test", "map"}},
}
TITLES = {"pjreddie": "Debian's darknet of 2018", "alexeyab": "AlexeyAB's darknet", "hank": "hank-ai's darknet"}
#: Strings that a dialect's program holds, every one of them, and no other program holds all. All three are linked from
#: objects, so that they stand in the program itself and not in a libdarknet.
MARKS = {
    "pjreddie": (b"Not an option: %s\n", b"-fullscreen", b"isegmenter"),
    "alexeyab": (b"-mjpeg_port", b"darknet detector calc_anchors", b"(next TOP%d calculation"),
    "hank": (b", time remaining=", b"is unused or invalid: ", b"calcanchors"),
}

# The rest was read off the programs: Debian's was given each option and said which it leaves unused; of those in [net]
# it says nothing, they were read in its source.
#: Layers of `fer.darknet.formats.cfg` that a program doesn't have.
LACKS_LAYERS = {"pjreddie": {"reorg3d"}, "alexeyab": set(), "hank": {"crop", "local", "detection", "reorg"}}
_OLD = "logistic loggy relu elu selu relie plse hardtan lhtan linear ramp leaky tanh stair"
_NEW = f"{_OLD} swish mish hard_mish gelu relu6 revleaky normalize_channels normalize_channels_softmax"
_NEW += " normalize_channels_softmax_maxval"
_POLICIES = "random poly constant step exp sigmoid steps"
#: Values of an option, by (kind, option), where "" is any kind; a program takes another for one that it doesn't know.
VALUES = {
    ("", "activation"): {"pjreddie": _OLD, "alexeyab": _NEW, "hank": _NEW},
    ("net", "policy"): {"pjreddie": _POLICIES, "alexeyab": f"{_POLICIES} sgdr", "hank": f"{_POLICIES} sgdr"},
    ("cost", "type"): {"pjreddie": "seg sse masked smooth L1 wgan", "alexeyab": "sse masked smooth"},
}
#: Options that all of the programs read; "" is any layer.
OPTIONS = {
    "": "stopbackward onlyforward dontload dontloadscales learning_rate",
    "net": "batch subdivisions max_batches learning_rate momentum decay time_steps adam B1 B2 eps height width "
    "channels inputs max_crop min_crop angle aspect saturation exposure hue policy burn_in power "
    "step scale steps scales gamma",
    "convolutional": "filters size stride pad padding groups activation batch_normalize binary xnor flipped dot",
    "maxpool": "size stride padding",
    "avgpool": "",
    "softmax": "groups temperature tree spatial noloss",
    "cost": "type scale ratio",
    "route": "layers",
    "shortcut": "from activation",
    "upsample": "stride scale",
    "dropout": "probability",
    "connected": "output activation batch_normalize",
    "crop": "crop_height crop_width flip angle saturation exposure noadjust shift",
    "yolo": "mask anchors classes num jitter ignore_thresh truth_thresh random max map",
}
PJREDDIE_ONLY = {
    "": "truth dontsave numload smooth",
    "net": "notruth random max_ratio min_ratio center clip",
    "cost": "thresh",
    "shortcut": "alpha beta",
}
COSMETIC = "cosmetic"  # changes speed, memory, charts or object tracking, never the net or its training
#: Options that only AlexeyAB's and hank-ai's read, with the value that stands for what Debian's does anyway.
NEWER: dict[str, dict[str, str | None]] = {
    "": dict.fromkeys(("dont_update", "burnin_update", "train_only_bn", "clip"), "0"),
    "net": dict.fromkeys(
        "mosaic cutmix mixup mosaic_bound blur gaussian_noise label_smooth_eps ema_alpha contrastive "
        "contrastive_jit_flip contrastive_color unsupervised attention adversarial_lr dynamic_minibatch try_fix_nan "
        "weights_reject_freq equidistant_point badlabels_rejection_percentage num_sigmas_reject_badlabels "
        "track".split(),
        "0",
    )
    | dict.fromkeys(
        "learning_rate_min sgdr_cycle sgdr_mult augment_speed use_cuda_graph loss_scale optimized_memory "
        "workspace_size_limit_MB max_chart_loss show_receptive_field".split(),
        COSMETIC,
    )
    | {"flip": "1", "letter_box": "1", "resize_step": "32", "sequential_subdivisions": None, "seq_scales": None},
    "convolutional": dict.fromkeys(
        "antialiasing assisted_excitation cbn bin_output sway rotate stretch stretch_sway grad_centr reverse "
        "coordconv".split(),
        "0",
    )
    | {"dilation": "1", "stride_x": None, "stride_y": None, "share_index": None, "angle": COSMETIC}
    | {"stream": COSMETIC, "wait_stream": COSMETIC},
    "maxpool": {"stride_x": None, "stride_y": None, "maxpool_depth": "0", "out_channels": "1", "antialiasing": "0"}
    | {"maxpool_zero_nonmax": "0"},
    "route": {"groups": "1", "group_id": "0", "stream": COSMETIC, "wait_stream": COSMETIC},
    "shortcut": {"weights_type": "none", "weights_normalization": "none"},
    "dropout": {"dropblock": "0", "dropblock_size_rel": COSMETIC, "dropblock_size_abs": COSMETIC},
    "yolo": {"scale_x_y": "1", "new_coords": "0", "objectness_smooth": "0", "label_smooth_eps": "0", "focal_loss": "0"}
    | {"iou_loss": "mse", "iou_thresh_kind": "iou", "iou_thresh": "1", "nms_kind": "default", "beta_nms": COSMETIC}
    | dict.fromkeys(("iou_normalizer", "obj_normalizer", "cls_normalizer", "delta_normalizer", "resize"), "1")
    | {"max_delta": None, "counters_per_class": None, "embedding_layer": None, "show_details": COSMETIC}
    | dict.fromkeys(
        ("track_history_size", "sim_thresh", "dets_for_track", "dets_for_show", "track_ciou_norm"), COSMETIC
    ),
}
#: hank-ai's ends at these, which were for its former classifiers.
NOT_HANK = {"min_crop", "max_crop", "unsupervised"}
#: Options that a trained net is used without.
TRAINING = {kind: NEWER[kind].keys() - kept for kind, kept in (
    ("net", {"letter_box"}), ("yolo", {"scale_x_y", "new_coords", "nms_kind"}), ("dropout", set()),
)}  # fmt: skip
