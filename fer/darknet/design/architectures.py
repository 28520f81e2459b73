"""The original experiment's Darknet networks: functions that build a family's sections, and one table of [net] options.

Sources: Redmon & Farhadi 2018 (YOLOv3), Wang et al. 2019 (CSPNet), Bochkovskiy et al. 2020 (YOLOv4). Layers and their
options are those of the programs' own files, so their pre-trained weights fit; a head stands for 7 classes until
`fer.darknet.design.fit` adapts it.
"""

from collections.abc import Callable, Sequence

from fer.darknet.formats.cfg import Section
from fer.errors import InputError

CLASSES = 7

Sections = list[Section]


def _section(kind: str, **options: object) -> Section:
    return Section(kind, {key: str(value) for key, value in options.items()})


def _conv(filters: int, size: int = 3, stride: int = 1, activation: str = "leaky") -> Section:
    return _section(
        "convolutional", batch_normalize=1, filters=filters, size=size, stride=stride, pad=1, activation=activation
    )


def _linear(filters: int) -> Section:
    """A 1x1 convolution without batch normalisation: the logits of a head."""
    return _section("convolutional", filters=filters, size=1, stride=1, pad=1, activation="linear")


def _maxpool(size: int = 2, stride: int = 2) -> Section:
    return _section("maxpool", size=size, stride=stride)


def _route(*layers: int) -> Section:
    return _section("route", layers=",".join(map(str, layers)))


def _upsample() -> Section:
    return _section("upsample", stride=2)


def _yolo(mask: Sequence[int], anchors: str, **options: object) -> Sections:
    """The logits and their [yolo]: for each anchor of the mask 4 box numbers, objectness and the classes."""
    return [
        _linear((CLASSES + 5) * len(mask)),
        _section(
            "yolo", mask=",".join(map(str, mask)), anchors=anchors, classes=CLASSES, num=anchors.count(",") // 2 + 1,
            jitter=0.3, ignore_thresh=0.7, truth_thresh=1, **options,
        ),
    ]  # fmt: skip


# Pixels at the sizes of the original nets, 416 (tiny) and 512 (v4), as width, height.
_TINY_ANCHORS = "10,14,23,27,37,58,81,82,135,169,344,319"
_V4_ANCHORS = "12,16,19,36,40,28,36,75,76,55,72,146,142,110,192,243,459,401"


def _tiny_backbone() -> Sections:
    """The reference net's convolutions 16 to 512 with a pooling between two: its 11 layers are v3_tiny's first 11."""
    sections: Sections = []
    for filters in (16, 32, 64, 128, 256, 512):
        sections += [_conv(filters), _maxpool()]
    return sections[:-1]


def _csp_stage(filters: int, blocks: int) -> Sections:
    """A stage of CSPDarknet53: halve the size, send half of the channels through residual blocks, join, mix."""
    # The first stage is not split: both ways keep all channels and only the block narrows.
    first = filters == 64
    half, narrow = (filters, filters // 2) if first else (filters // 2, filters // 2)
    sections = [_conv(filters, 3, 2), _conv(half, 1), _route(-2), _conv(half, 1)]
    for _ in range(blocks):
        sections += [_conv(narrow, 1), _conv(half, 3), _section("shortcut", **{"from": -3, "activation": "linear"})]
    return [*sections, _conv(half, 1), _route(-1, -(3 * blocks + 4)), _conv(filters, 1)]


def _csp_darknet53() -> Sections:
    """The 105 layers that classifier_omega and v4 share; mish everywhere."""
    sections = [_conv(32)]
    for filters, blocks in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
        sections += _csp_stage(filters, blocks)
    return [Section(s.kind, s.options | {"activation": "mish"}) if s.kind == "convolutional" else s for s in sections]


def _csp_tiny_backbone(share: float) -> Sections:
    """The first 27 layers of v4_tiny with this share of its channels."""
    sections = [_conv(int(filters * share), 3, 2) for filters in (32, 64)]
    for filters in (64, 128, 256):
        sections += _csp_tiny_stage(int(filters * share))
    return [*sections, _conv(int(512 * share))]


def _csp_tiny_stage(filters: int) -> Sections:
    """A stage of v4_tiny: the second half of the channels takes the longer way; the stage's end has 2 x filters."""
    return [
        _conv(filters),
        _section("route", layers=-1, groups=2, group_id=1),
        _conv(filters // 2),
        _conv(filters // 2),
        _route(-1, -2),
        _conv(filters, 1),
        _route(-6, -1),
        _maxpool(),
    ]


def _squeeze(filters: int, convolutions: int) -> Sections:
    """Convolutions of 1x1 to ``filters`` and 3x3 to twice as many, in turn."""
    return [_conv(filters, 1) if i % 2 == 0 else _conv(2 * filters, 3) for i in range(convolutions)]


def _classifier_head() -> Sections:
    return [_section("avgpool"), _linear(CLASSES), _section("softmax", groups=1)]


def _classifier_tiny() -> Sections:
    return [*_tiny_backbone(), _maxpool(), _conv(1024), *_classifier_head()]


def _classifier_small() -> Sections:
    sections: Sections = []
    for filters in (16, 32, 64, 128):
        sections += [_conv(filters), _maxpool()]
    return [*sections[:-1], *_classifier_head()]


def _classifier_omega() -> Sections:
    return [*_csp_darknet53(), *_classifier_head()]


def _v3_tiny() -> Sections:
    return [
        *_tiny_backbone(), _maxpool(2, 1), _conv(1024), _conv(256, 1), _conv(512), *_yolo((3, 4, 5), _TINY_ANCHORS),
        _route(-4), _conv(128, 1), _upsample(), _route(-1, 8), _conv(256), *_yolo((0, 1, 2), _TINY_ANCHORS),
    ]  # fmt: skip


def _classifier_v4_tiny_half() -> Sections:
    return [*_csp_tiny_backbone(0.5), *_classifier_head()]


def _v4_tiny(share: float = 1, small: Sequence[int] = (1, 2, 3)) -> Sections:
    """The published net leaves the smallest anchor out; ``small`` are those of its finer head."""
    options = {
        "scale_x_y": 1.05, "cls_normalizer": 1.0, "iou_normalizer": 0.07, "iou_loss": "ciou", "resize": 1.5,
        "nms_kind": "greedynms", "beta_nms": 0.6,
    }  # fmt: skip
    c128, c256, c512 = (int(filters * share) for filters in (128, 256, 512))
    return [
        *_csp_tiny_backbone(share), _conv(c256, 1), _conv(c512), *_yolo((3, 4, 5), _TINY_ANCHORS, **options),
        _route(-4), _conv(c128, 1), _upsample(), _route(-1, 23), _conv(c256),
        *_yolo(small, _TINY_ANCHORS, **options),
    ]  # fmt: skip


def _v4_tiny_half() -> Sections:
    return _v4_tiny(0.5, (0, 1, 2))


def _v4() -> Sections:
    def head(mask: Sequence[int], scale: float) -> Sections:
        return _yolo(
            mask, _V4_ANCHORS, scale_x_y=scale, iou_thresh=0.213, cls_normalizer=1.0, iou_normalizer=0.07,
            iou_loss="ciou", nms_kind="greedynms", beta_nms=0.6, max_delta=5,
        )  # fmt: skip

    pyramid_pooling = [_maxpool(5, 1), _route(-2), _maxpool(9, 1), _route(-4), _maxpool(13, 1), _route(-1, -3, -5, -6)]
    sections = [*_csp_darknet53(), *_squeeze(512, 3), *pyramid_pooling, *_squeeze(512, 3)]
    # up to the sizes of the backbone's stages 4 (layer 85) and 3 (layer 54)
    for filters, stage in ((256, 85), (128, 54)):
        sections += [_conv(filters, 1), _upsample(), _route(stage), _conv(filters, 1), _route(-1, -3)]
        sections += _squeeze(filters, 5)
    sections += [_conv(256), *head((0, 1, 2), 1.2)]
    # and down again, joined with the ends of the way up
    for filters, end, mask, scale in ((256, -16, (3, 4, 5), 1.1), (512, -37, (6, 7, 8), 1.05)):
        sections += [_route(-4), _conv(filters, 3, 2), _route(-1, end), *_squeeze(filters, 6), *head(mask, scale)]
    return sections


#: The original experiment's table for its detectors.
_DETECTOR: dict[str, object] = {
    "batch": 64, "subdivisions": 1, "width": 256, "height": 256, "channels": 3, "momentum": 0.9, "decay": 0.0005,
    "saturation": 1.5, "exposure": 1.5, "hue": 0.1, "learning_rate": 0.00261, "burn_in": 1000, "max_batches": 400000,
    "policy": "steps", "steps": "320000,360000", "scales": ".1,.1",
}  # fmt: skip

_CLASSIFIER: dict[str, object] = {
    "batch": 128, "subdivisions": 1, "channels": 3, "momentum": 0.9, "decay": 0.0005, "burn_in": 1000,
    "learning_rate": 0.1, "policy": "poly", "power": 4, "angle": 7, "hue": 0.1, "saturation": 0.75, "exposure": 0.75,
    "aspect": 0.75,
}  # fmt: skip

#: Recipe name to the options of [net] and the function that builds the layers.
RECIPES: dict[str, tuple[dict[str, object], Callable[[], Sections]]] = {
    "classifier_tiny": (
        _CLASSIFIER | {"width": 224, "height": 224, "min_crop": 112, "max_crop": 392, "max_batches": 400200},
        _classifier_tiny,
    ),
    "classifier_omega": (
        _CLASSIFIER
        | {"subdivisions": 8, "width": 256, "height": 256, "min_crop": 128, "max_crop": 448, "max_batches": 40000}
        | {"mosaic": 1, "cutmix": 1, "label_smooth_eps": 0.1},
        _classifier_omega,
    ),
    "classifier_small": (
        _CLASSIFIER
        | {"batch": 32, "width": 48, "height": 48, "min_crop": 48, "max_crop": 60, "max_batches": 1000}
        | {"learning_rate": 0.05, "burn_in": 20},
        _classifier_small,
    ),
    "classifier_v4_tiny_half": (
        _CLASSIFIER
        | {"width": 64, "height": 64, "min_crop": 64, "max_crop": 80, "max_batches": 4000, "burn_in": 100}
        | {"learning_rate": 0.05, "power": 1},
        _classifier_v4_tiny_half,
    ),
    "v3_tiny": (_DETECTOR | {"subdivisions": 2}, _v3_tiny),
    "v4_tiny": (_DETECTOR | {"mosaic": 1}, _v4_tiny),
    "v4_tiny_half": (_DETECTOR | {"mosaic": 1}, _v4_tiny_half),
    "v4": (_DETECTOR | {"subdivisions": 8, "mosaic": 1}, _v4),
}


def recipe(name: str) -> Sections:
    """Return the sections of a recipe, for 7 classes.

    Raises:
        InputError: an unknown name.
    """
    if name not in RECIPES:
        raise InputError(f"darknet.name={name} is not one of {', '.join(RECIPES)}")
    net, build = RECIPES[name]
    return [_section("net", **net), *build()]
