"""A trained net on a torch device, with what the program that wrote its weights does differently from another."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torchvision.ops import nms

from fer.darknet.formats.cfg import Section, integer
from fer.darknet.formats.run_folder import read_facts
from fer.darknet.formats.section import number
from fer.darknet.formats.weights import Net, read_header
from fer.darknet.scoring.mean_ap import MIN_CONFIDENCE
from fer.darknet.torch_engine.network import DarknetNetwork, fuse
from fer.darknet.torch_engine.onednn import pack
from fer.darknet.torch_engine.picture import Place, place
from fer.darknet.torch_engine.weighted import BatchNorm
from fer.darknet.torch_engine.weights_io import open_network
from fer.data.boxes import iou
from fer.data.source import FaceFormat
from fer.errors import InputError
from fer.labels import canonical
from fer.system.device import to_device

#: IoU over which the less sure of two boxes is left out: `detector map`'s.
NMS_IOU = 0.45


#: A photo's pixels in the net's input, where it lies in it, and its width and height.
Prepared = tuple[np.ndarray, Place, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Boxes:
    """What a detector sees in a photo: box (N, 4) x, y, width, height in pixels of the photo, not cut to it.

    ``objectness`` (N,); ``confidence`` (N, classes), objectness times the class's probability.
    """

    box: torch.Tensor
    objectness: torch.Tensor
    confidence: torch.Tensor


def read_dialect(weights: Path) -> str:
    """Return which program's way a weights file is run: "alexeyab" for version 0.2.5, "pjreddie" for 0.2.0 and before.

    Each program writes its own version.

    Raises:
        InputError: no .weights file.
    """
    return "alexeyab" if read_header(weights).revision >= 5 else "pjreddie"


def letterboxes(net: Net) -> bool:
    """Return whether a detector's photos are put on grey or stretched: its cfg's letter_box=, else as its program does.

    Debian's puts every photo on grey, AlexeyAB's stretches it.
    """
    return bool(integer(net.sections[0], "letter_box", int(read_dialect(net.weights) == "pjreddie")))


def open_fused(net: Net) -> DarknetNetwork:
    """Return a trained net for inference, on the CPU, its batch normalisation worked in; `open_on` for running it.

    Raises:
        InputError: as `fer.darknet.torch_engine.weights_io.open_network`, or a net that does not take photos in RGB.
    """
    network = open_network(net)
    if network.size[2] != 3:
        raise InputError(f"{net.cfg}: channels={network.size[2]}: darknet.engine=torch gives photos in RGB, 3 channels")
    if read_dialect(net.weights) == "pjreddie":
        for module in network.modules():
            if isinstance(module, BatchNorm):
                # divides by sqrt(variance) + 0.000001, which matters where a filter hardly varies
                module.running_var.copy_((module.running_var.sqrt() + 1e-6) ** 2)
                module.eps = 0.0
    return fuse(network)


def open_on(net: Net, device: str) -> tuple[DarknetNetwork, torch.device]:
    """Return `open_fused` ready to run on a device (auto, cpu, cuda, cuda:1, ...), and the device.

    Raises:
        InputError: as `open_fused`, or no such device.
    """
    network, place = to_device(open_fused(net), device)
    if place.type == "cpu":
        pack(network)
    return network, place


def distance_power(sections: Sequence[Section]) -> float | None:
    """Return the power by which the last [yolo]'s nms_kind= lets distance count (`suppress_classes`), or None.

    AlexeyAB's program has 0.6 for greedynms and beta_nms= for diounms.

    Raises:
        InputError: another nms_kind=.
    """
    power = None
    for section in sections:
        kind = section.options.get("nms_kind", "default")
        if kind not in ("default", "greedynms", "diounms"):
            raise InputError(
                f"{section.where}: nms_kind={kind} is not supported with darknet.engine=torch: set default, greedynms "
                "or diounms"
            )
        if section.kind in ("yolo", "Gaussian_yolo"):
            power = {"default": None, "greedynms": 0.6, "diounms": number(section, "beta_nms", 0.6)}[kind]
    return power


def square_side(net: Net) -> int:
    """Return the side of a classifier's input in pixels.

    Raises:
        InputError: width and height differ.
    """
    width, height = (int(net.sections[0].options[key]) for key in ("width", "height"))
    if width != height:
        raise InputError(f"{net.cfg}: width={width} and height={height} of a classifier differ: give them one size")
    return width


def report_labels(net: Net) -> tuple[str, ...]:
    """Return the classes as every report spells them: emotion.names says Anger for Angry."""
    return tuple(canonical(name) or name for name in net.names)


class Detector:
    """A detector on a torch device; ``labels``, ``face``, ``name`` and ``drawn`` as those of a `Network`.

    ``power`` is that of `distance_power`, None for weights of Debian's program, which knows no nms_kind=.

    Raises:
        InputError: as `open_on`, or a cfg with another way to leave out overlapping boxes.
    """

    def __init__(self, net: Net, device: str = "auto") -> None:
        power = distance_power(net.sections)
        self.power = None if read_dialect(net.weights) == "pjreddie" else power
        self._network, self._device = open_on(net, device)
        self._width, self._height, _ = self._network.size
        self._letterbox = letterboxes(net)
        self.labels, self.name, self.device = report_labels(net), net.cfg.stem, str(self._device)
        self.face, self.drawn = FaceFormat(self._width, "rgb"), bool(read_facts(net.weights).get("drawn", False))

    def prepare(self, picture: np.ndarray) -> Prepared:
        """Return a picture uint8 (h, w, 3) RGB as `detect` takes it; callable from several threads at once."""
        return *place(picture, self._width, self._height, self._letterbox), picture.shape[1::-1]

    def detect(self, prepared: Sequence[Prepared], min_confidence: float) -> Iterator[Boxes]:
        """Yield the boxes of each picture that have a confidence over ``min_confidence``; they still overlap."""
        photos = torch.from_numpy(np.stack([pixels for pixels, _, _ in prepared])).to(self._device)
        with torch.inference_mode():
            output = self._network(photos.permute(0, 3, 1, 2)).cpu()
        for rows, (_, where, (width, height)) in zip(output, prepared, strict=True):
            # the exponential of a net that was not trained well may be no number
            rows = rows[(rows[:, 4:5] * rows[:, 5:] > min_confidence).any(1) & rows.isfinite().all(1)]
            inside = rows.new_tensor([where.width, where.height])
            middle, extent = (rows[:, :2] - rows.new_tensor([where.x, where.y])) / inside, rows[:, 2:4] / inside
            box = torch.cat([middle - extent / 2, extent], 1) * rows.new_tensor([width, height, width, height])
            yield Boxes(box, rows[:, 4], rows[:, 4:5] * rows[:, 5:])


def suppress(box: torch.Tensor, confidence: torch.Tensor) -> torch.Tensor:
    """Return which of boxes (N, 4) stay, surest first: a box that overlaps a surer one by more than NMS_IOU goes."""
    return nms(torch.cat([box[:, :2], box[:, :2] + box[:, 2:]], 1), confidence, NMS_IOU)


def listed(confidence: torch.Tensor, selected: Sequence[torch.Tensor]) -> np.ndarray:
    """Return the rows and labels (N, 2) of what `suppress_classes` selected, as AlexeyAB's program lists them.

    It sorts the boxes by their confidence in one class after the other: they stand by that in the last class, those
    that have none over MIN_CONFIDENCE there by that in the class before, and so on.
    """
    counted = np.where(confidence.numpy() > MIN_CONFIDENCE, confidence.numpy(), 0)
    place = np.lexsort(-counted.T).argsort()
    pairs = [(place[row], label, row) for label, rows in enumerate(selected) for row in rows.tolist()]
    return np.array(sorted(pairs), int).reshape(-1, 3)[:, [2, 1]]


def suppress_classes(box: torch.Tensor, confidence: torch.Tensor, power: float | None) -> list[torch.Tensor]:
    """Return for each class which of boxes (N, 4) stay by `suppress`.

    ``confidence`` is (N, classes); what is over MIN_CONFIDENCE counts.
    With a ``power`` (`distance_power`) the overlap is IoU less (the squared distance of the centres / the squared
    diagonal around both) ** power, as in AlexeyAB's program, of boxes in fractions of the photo.
    """
    if power is None:
        candidates = [(column > MIN_CONFIDENCE).nonzero().flatten() for column in confidence.T]
        return [rows[suppress(box[rows], column[rows])] for rows, column in zip(candidates, confidence.T, strict=True)]
    array = box.numpy()
    low, high = array[:, :2], array[:, :2] + array[:, 2:]
    hidden: dict[int, np.ndarray] = {}  # a box to the places of those that it overlaps too much, in any class

    def hides(i: int) -> np.ndarray:
        overlap = iou(array[i], array)
        near = np.flatnonzero(overlap > NMS_IOU)  # distance only takes from IoU
        around = np.maximum(high[i], high[near]) - np.minimum(low[i], low[near])
        apart = (low[i] + high[i] - low[near] - high[near]) / 2
        distance = ((apart**2).sum(1) / (around**2).sum(1)) ** power
        return near[overlap[near] - distance > NMS_IOU]

    by_class = []
    for column in confidence.T:
        left, selected = (column > MIN_CONFIDENCE).numpy(), []
        for i in column.argsort(descending=True, stable=True).tolist():
            if left[i]:
                selected.append(i)
                if i not in hidden:
                    hidden[i] = hides(i)
                left[hidden[i]] = False
        by_class.append(torch.tensor(selected, dtype=torch.long))
    return by_class
