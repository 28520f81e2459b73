"""Typed schemas of the config groups and of the entry points' own keys; what they mean is said in conf/."""

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING


@dataclass
class Data:
    """Keys that every data set has; see conf/data for what they mean."""

    name: str = MISSING
    file: str = MISSING
    size: int = MISSING
    color: str = MISSING
    margin: float = MISSING
    min_bytes: int = MISSING
    max_bytes: int | None = MISSING
    max_pixels: int = MISSING
    seed: int = MISSING
    exif: str = "apply"
    keep: str = "auto"
    shards: str | None = None
    # a number or "persons", which OmegaConf can't say; check_data checks it
    folds: Any = None
    fold: int | None = None


@dataclass
class SampleData(Data):
    raw: str = MISSING
    photos: int = MISSING
    val_fraction: float = MISSING


@dataclass
class ScenesData(Data):
    raw: str = MISSING
    faces: str = MISSING
    backgrounds: str | None = MISSING
    photos: int = MISSING


@dataclass
class Fer2013Data(Data):
    raw: str | None = MISSING
    votes: str | None = None


@dataclass
class AffectNetData(Data):
    raw: str | None = MISSING
    contempt: bool = MISSING
    val_fraction: float = MISSING


@dataclass
class Fer2021Data(Data):
    affectnet: str | None = MISSING
    fer2013: str | None = MISSING


@dataclass
class OwnData(Data):
    raw: str | None = MISSING
    classes: list[str] | None = MISSING
    val_fraction: float = MISSING
    test_fraction: float = MISSING


@dataclass
class FolderData(OwnData):
    group: str | None = None


@dataclass
class YoloData(OwnData):
    # a list of names or a file of them, which OmegaConf can't say; check_data checks it
    names: Any = None
    images: str | None = None


@dataclass
class SourceData(Data):
    """Keys of data with a reader of its own: all but ``source`` are given to it where it takes them."""

    source: Any = MISSING
    raw: str | None = None
    classes: list[str] | None = None
    val_fraction: float | None = None
    test_fraction: float | None = None
    group: str | None = None


@dataclass
class ModuleData:
    """Keys of data from a module of the user's, beside its target and arguments."""

    name: str = MISSING
    size: int = MISSING
    color: str = "grey"
    margin: float = 0.0


DATA = {
    "sample": SampleData,
    "fer2013": Fer2013Data,
    "affectnet": AffectNetData,
    "fer2021": Fer2021Data,
    "folder": FolderData,
    "csv": OwnData,
    "yolo": YoloData,
    "scenes": ScenesData,
}


@dataclass
class ParamGroups:
    no_decay: bool = False
    layer_decay: float | None = None


@dataclass
class Recipe:
    """Keys of conf/recipe; by default all is off."""

    mixup: float = 0.0
    cutmix: float = 0.0
    mix: float = 0.0
    sam: float | None = None
    teachers: list[str] | None = None
    teacher_weight: float = 0.9
    teacher_temperature: float = 2.0
    ema: float | None = None
    sampler: str = "shuffle"
    votes: str = "none"


@dataclass
class Darknet:
    """Keys of conf/darknet; what a net's file leaves out is None: as in the recipe, or the .cfg file."""

    name: str = MISSING
    engine: str = "binary"
    binary: str | None = None
    cfg: str | None = None
    names: str | None = None
    folder: str | None = None
    crop: str | None = None
    size: int | None = None
    batch: int | None = None
    subdivisions: int | None = None
    max_batches: int | None = None
    epochs: float | None = None
    learning_rate: float | None = None
    momentum: float | None = None
    decay: float | None = None
    burn_in: int | None = None
    policy: str | None = None
    power: float | None = None
    steps: list[int] | None = None
    scales: list[float] | None = None
    angle: float | None = None
    aspect: float | None = None
    saturation: float | None = None
    exposure: float | None = None
    hue: float | None = None
    mosaic: int | None = None
    cutmix: int | None = None
    jitter: float | None = None
    random: int | None = None
    min_crop: int | None = None
    max_crop: int | None = None
    anchors: Any = None
    pretrained: str | None = None
    pretrained_layers: int | None = None
    pretrained_cfg: str | None = None
    map: bool = False
    topk: bool = False
    clear: bool = False
    dont_show: bool = True
    mjpeg_port: int | None = None
    gpus: str | None = None


@dataclass
class Train:
    """The keys of conf/train.yaml that are not groups."""

    name: str = MISSING
    batch_size: int = MISSING
    num_workers: int = MISSING
    channels_last: bool = MISSING
    compile: bool = MISSING
    bare_step: bool = MISSING
    seed: int = MISSING
    early_stop: int | None = MISSING
    freeze: list[str] | None = MISSING
    unfreeze_epoch: int | None = MISSING
    resume: str | None = MISSING
    init: str | None = MISSING
    trust: list[str] = MISSING
    # fer.config.checks.check_labels says what they may be
    tags: Any = None
    notes: Any = None


@dataclass
class Evaluate:
    # a name or path, or a list of them, which OmegaConf can't say; fer.evaluation.run checks it
    ckpt: Any = MISSING
    split: str | None = MISSING
    classes: str | None = MISSING
    contempt: str | None = MISSING
    ten_crop: bool = MISSING
    scales: list[int] | None = MISSING
    device: str = MISSING
    thresh: float = MISSING
    iou_thresh: float = MISSING
    compare: list[str] | None = MISSING
    # a folder, or a list of them
    folds: Any = None
    out: str | None = MISSING
    trust: list[str] = MISSING


@dataclass
class Faces:
    name: str = MISSING
    model: str | None = MISSING
    min_size: int = MISSING


@dataclass
class Predict:
    source: str | None = MISSING
    ckpt: str | None = MISSING
    out: str | None = MISSING
    min_confidence: float | None = MISSING
    draw: bool = MISSING
    anonymize: bool = MISSING
    show: bool = MISSING
    explain: bool = MISSING
    layer: str | None = MISSING
    every_n: int = MISSING
    search_every: int = MISSING
    smooth: float = MISSING
    batch: int = MISSING
    device: str = MISSING
    margin: float | None = MISSING
    tta: bool = MISSING
    strict: bool = MISSING
    classes: list[str] | None = MISSING
    embed: bool = MISSING
    trust: list[str] = MISSING


@dataclass
class Backend:
    backend: str = MISSING
    address: str | None = MISSING


@dataclass
class Prepare:
    out: str | None = MISSING
    format: str = MISSING
    shards: str | None = MISSING
    crop: str = MISSING
    link: str = MISSING
    verify: str | None = MISSING
    workers: int | None = MISSING
    prepare: Backend = MISSING


@dataclass
class Look:
    file: str | None = MISSING
    out: str | None = MISSING
    seed: int = MISSING


@dataclass
class Demo:
    ckpt: str | None = MISSING
    port: int = MISSING
    device: str = MISSING
    margin: float | None = MISSING
    tta: bool = MISSING
    classes: list[str] | None = MISSING
    trust: list[str] = MISSING


@dataclass
class Export:
    ckpt: str | None = MISSING
    format: str = MISSING
    out: str | None = MISSING
    temperature: Any = MISSING
    calibration: int = MISSING
    trust: list[str] = MISSING
