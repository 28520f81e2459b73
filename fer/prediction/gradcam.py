"""Grad-CAM: where in a face the network saw what made it choose a class; heat maps, a test of them, and one figure.

The gradients of a class's logit weight the maps of a convolution place by place, as in HiResCAM (Draelos and Carin
2020); Grad-CAM (Selvaraju et al. 2017) averages them over each map first. On real photos what that showed of our
networks carried no more of the probability than random places did; docs/prediction.md has the numbers.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fer.data.photos import channels_first
from fer.engines import ONNX, TORCH_EXPORT, is_darknet, suffix_of
from fer.errors import InputError
from fer.labels import colors
from fer.models.checkpoint import load_checkpoint
from fer.models.classifier import EmotionClassifier
from fer.models.crops import center_crop
from fer.system.device import to_device

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Fewest rows and columns of a map that is shown unasked: of 2 x 2 the middle, a nose, is hot for every class, and
#: those of 5 x 5 carried hardly more than random places.
LEAST_MAP = 8

#: The hottest part of what the network sees that is the shown region, with how many random regions it is compared, and
#: the blur that deletes a region, as a part of the face's side.
_REGION, _RANDOM, _BLUR = 0.2, 16, 1 / 8


def grad_cam(
    model: EmotionClassifier, faces: Tensor, layer: str | None = None, target: int | Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return heat maps float32 (N, size, size) in 0..1 and probabilities (N, classes) of uint8 (N, C, size, size).

    heat = relu(sum_k dy/dA_k * A_k), where A_k are the feature maps of a convolution and y the class's logit: HiResCAM,
    which is Grad-CAM where a network averages each map. It is resized bilinearly to the crop that the network sees,
    put back where the crop lay in the face (0 around it), and divided by its largest value; where
    nothing speaks for the class it is 0 everywhere. ``layer`` is a key of `convolutions`, `default_layer` if None;
    ``target`` a class index, or one a face (N,), the most probable class if None. ``model`` is in evaluation mode,
    ``faces`` are on its device.

    Raises:
        InputError: no convolution of that name, or none at all in the network.
    """
    convolution = find_convolution(model, layer or default_layer(model))
    with torch.enable_grad():
        maps, logits = _activations(model, convolution, faces)
        classes = torch.as_tensor(logits.argmax(1) if target is None else target, device=logits.device)
        score = logits.gather(1, classes.expand(len(faces))[:, None]).sum()
        (gradients,) = torch.autograd.grad(score, maps)
    heat = (gradients * maps.detach()).sum(1, keepdim=True).relu().float()
    heat = functional.interpolate(heat, (model.crop, model.crop), mode="bilinear", align_corners=False)
    placed = heat.new_zeros(len(faces), *faces.shape[-2:])
    center_crop(placed, model.crop).copy_(heat[:, 0])
    largest = placed.amax((1, 2), keepdim=True)
    return placed / largest.where(largest > 0, 1), logits.detach().softmax(1)


def convolutions(model: EmotionClassifier) -> dict[str, nn.Conv2d]:
    """Return the network's convolutions by name, in the order in which they were built; none of a transformer's.

    A transformer's one convolution cuts the picture into patches before anything has been recognised.
    """
    layers = {name: m for name, m in model.net.network.named_modules() if isinstance(m, nn.Conv2d)}
    cuts = [m.kernel_size == m.stride != (1, 1) for m in layers.values()]
    return {} if all(cuts) else layers


def default_layer(model: EmotionClassifier) -> str:
    """Return the last convolution with maps of LEAST_MAP rows and columns or, where none has, the last of the finest.

    Raises:
        InputError: the network has none to show.
    """
    layers, sizes = convolutions(model), dict[str, int]()
    if not layers:
        raise InputError(f"{model.name} has no convolution whose maps Grad-CAM could show: use a network that has")

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        return lambda _, __, maps: sizes.update({name: min(maps.shape[-2:])})

    handles = [layer.register_forward_hook(note(name)) for name, layer in layers.items()]
    try:
        with torch.no_grad():
            shape = 1 if model.face.color == "grey" else 3, model.face.size, model.face.size
            model(torch.zeros(1, *shape, dtype=torch.uint8, device=model.device))
    finally:
        for handle in handles:
            handle.remove()
    least = min(LEAST_MAP, max(sizes.values()))
    return [name for name, size in sizes.items() if size >= least][-1]


def find_convolution(model: EmotionClassifier, name: str) -> nn.Conv2d:
    """Return a convolution by name.

    Raises:
        InputError: no convolution of that name; the message lists those there are.
    """
    layers = convolutions(model)
    if name not in layers:
        raise InputError(f"layer={name}: no convolution of {model.name}; it has {', '.join(layers)}")
    return layers[name]


def _activations(model: EmotionClassifier, convolution: nn.Conv2d, faces: Tensor) -> tuple[Tensor, Tensor]:
    """Return a convolution's feature maps (N, K, h, w), as a leaf of the graph, and the logits computed from them."""
    maps: list[Tensor] = []

    def keep(_: nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        maps.append(output.detach().requires_grad_())
        # the next layer may be a ReLU in place, which must not change what is kept
        return maps[0].clone()

    handle = convolution.register_forward_hook(keep)
    try:
        logits = model(faces)
    finally:
        handle.remove()
    return maps[0], logits


def overlay(face: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Return a face uint8 (h, w) or (h, w, 3 RGB) with its heat map in colours over it, as uint8 RGB (h, w, 3).

    ``heat`` is in 0..1 and of any size: it is resized to the face. Where it is 0 the face is as it was; the hottest
    place is 60 % colour (Turbo: green, yellow, red), so that the features under it can still be seen.
    """
    height, width = face.shape[:2]
    heat = cv2.resize(heat, (width, height), interpolation=cv2.INTER_LINEAR)
    levels = np.rint(heat * 255).astype(np.uint8)
    colors = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    picture = cv2.cvtColor(face, cv2.COLOR_GRAY2RGB) if face.ndim == 2 else face
    opacity = 0.6 * heat[:, :, None]
    return np.rint(picture * (1 - opacity) + colors * opacity).astype(np.uint8)


@dataclass(frozen=True, slots=True)
class Explanation:
    """Where a network saw a class in a face, and how much of that class's probability was in this place.

    ``heat`` and ``probabilities`` are those of `grad_cam`; ``region``, bool (size, size), is the hottest fifth of
    what the network sees. ``before`` is the probability of ``label``, ``without`` what is left of it when the region is
    blurred, ``elsewhere`` the mean when instead regions of its shape at random places are; both None where nothing
    speaks for the class, so that there is no region.
    """

    label: str
    layer: str
    heat: np.ndarray
    probabilities: np.ndarray
    region: np.ndarray
    before: float
    without: float | None
    elsewhere: float | None

    def __str__(self) -> str:
        if self.without is None:
            return f"nothing in layer {self.layer} speaks for {self.label}"
        return (
            f"{self.label} {self.before:.0%}; with this {self.region.mean():.0%} of it blurred {self.without:.0%}, "
            f"with as much at random places {self.elsewhere:.0%}"
        )


def delete(face: np.ndarray, region: np.ndarray) -> np.ndarray:
    """Return a face uint8 (size, size) or (size, size, 3) that is blurred where ``region``, bool (size, size), says."""
    blurred = cv2.GaussianBlur(face, (0, 0), _BLUR * face.shape[0], borderType=cv2.BORDER_REPLICATE)
    return np.where(region if face.ndim == 2 else region[:, :, None], blurred, face)


def figure(face: np.ndarray, explanation: Explanation, labels: Sequence[str], title: str = "") -> "Figure":
    """Return one picture of a face as the network takes it, its probabilities, its heat map and the deletion test."""
    # here, as a page that shows heat maps alone needs no figures
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    label, region = explanation.label, explanation.region
    color = tuple(part / 255 for part in colors(labels)[label])
    drawing = Figure(figsize=(13, 3.8), layout="constrained")
    FigureCanvasAgg(drawing)
    left, middle, right, last = drawing.subplots(1, 4, width_ratios=(1, 1, 1, 1))
    left.imshow(face, cmap="gray", vmin=0, vmax=255)
    left.set_title("input", fontsize=10)
    bars = middle.barh(
        range(len(labels)), explanation.probabilities, color=[color if name == label else "0.85" for name in labels],
        edgecolor=["0.2" if name == label else "none" for name in labels],
    )  # fmt: skip
    middle.bar_label(bars, [f"{value:.1%}" for value in explanation.probabilities], padding=3)
    middle.set_yticks(range(len(labels)), labels)
    middle.invert_yaxis()
    middle.set(xlim=(0, 1.18), xticks=[])
    middle.spines[["top", "right", "bottom"]].set_visible(False)
    middle.set_title("probability", fontsize=10)
    right.imshow(overlay(face, explanation.heat))
    right.set_title(f"Grad-CAM for {label}\nlayer {explanation.layer}", fontsize=10)
    last.imshow(delete(face, region), cmap="gray", vmin=0, vmax=255)
    if explanation.without is None:
        last.set_title(f"nothing here speaks for {label}", fontsize=10)
    else:
        for axes in (right, last):
            axes.contour(region, [0.5], colors="white", linewidths=1.5)
        last.set_title(
            f"{label} {explanation.before:.1%}; blurred there {explanation.without:.1%}\n"
            f"as much at random {explanation.elsewhere:.1%}", fontsize=10
        )  # fmt: skip
    for axes in (left, right, last):
        axes.axis("off")
    for text in (*middle.get_yticklabels(), right.title, last.title, drawing.suptitle(title)):
        text.set_parse_math(False)  # a file called "a$b$c" is no formula
    return drawing


class Explainer:
    """A checkpoint that shows where it looked: faces as they are stored in a prepared file, to heat maps and pictures.

    ``labels`` are the class names in order, ``face`` the format of the faces it takes, ``layer`` the convolution shown.
    """

    def __init__(self, model: EmotionClassifier, layer: str | None = None) -> None:
        self.layer = layer or default_layer(model)
        find_convolution(model, self.layer)
        self.labels = tuple(model.labels)
        self.face = model.face
        self._model = model

    @classmethod
    def load(cls, ckpt: str | Path, layer: str | None = None, device: str = "auto") -> "Explainer":
        """Open a checkpoint; ``layer`` as in `grad_cam`; ``device`` auto (a GPU where there is one), cpu, cuda:1, ...

        Raises:
            InputError: not a checkpoint of this project, no such convolution in it, or no such device.
        """
        if suffix_of(ckpt) in (ONNX, TORCH_EXPORT):
            raise InputError(f"{ckpt}: an exported file has no gradients; give the .ckpt that it was made from")
        if is_darknet(ckpt):
            raise InputError(f"{ckpt}: Darknet nets have no heat maps here")
        model = load_checkpoint(ckpt)
        to_device(model.net, device)
        return cls(model, layer)

    def heat(self, faces: np.ndarray, labels: Sequence[str] | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Return heat maps float32 (N, size, size) and probabilities (N, classes) of faces uint8 (N, *face.shape).

        ``labels`` names the class to be explained for each face; None takes the most probable one.

        Raises:
            InputError: a label that the checkpoint has not, or faces of another shape.
        """
        if faces.shape[1:] != self.face.shape or faces.dtype != np.uint8:
            expected = ", ".join(map(str, self.face.shape))
            raise InputError(f"faces {faces.dtype} {faces.shape}: this checkpoint takes uint8 (N, {expected})")
        for label in labels or ():
            if label not in self.labels:
                raise InputError(f"label {label}: not one of {', '.join(self.labels)}")
        images = torch.from_numpy(channels_first(faces)).to(self._model.device)
        target = None if labels is None else torch.tensor([self.labels.index(label) for label in labels])
        heat, probabilities = grad_cam(self._model, images, self.layer, target)
        return heat.cpu().numpy(), probabilities.cpu().numpy()

    def __call__(self, faces: np.ndarray, labels: Sequence[str] | None = None) -> list[np.ndarray]:
        """Return the overlay uint8 RGB (size, size, 3) of each face; arguments and errors as for `heat`."""
        return [overlay(face, heat) for face, heat in zip(faces, self.heat(faces, labels)[0], strict=True)]

    def explain(self, faces: np.ndarray, labels: Sequence[str] | None = None) -> list[Explanation]:
        """Return where each face shows a class, and the deletion test of it; arguments and errors as for `heat`."""
        heat, probabilities = self.heat(faces, labels)
        names = labels or [self.labels[row.argmax()] for row in probabilities]
        return [self._tested(*each) for each in zip(faces, heat, probabilities, names, strict=True)]

    def _tested(self, face: np.ndarray, heat: np.ndarray, probabilities: np.ndarray, label: str) -> Explanation:
        region, index = _hottest(heat, self._model.crop), self.labels.index(label)
        before, without, elsewhere = float(probabilities[index]), None, None
        if region.any():
            regions = np.stack([region, *_moved(region, self._model.crop)])
            changed = np.stack([delete(face, each) for each in regions])
            with torch.inference_mode():
                logits = self._model(torch.from_numpy(channels_first(changed)).to(self._model.device))
            left = logits.float().softmax(1)[:, index].cpu().numpy()
            without, elsewhere = float(left[0]), float(left[1:].mean())
        return Explanation(label, self.layer, heat, probabilities, region, before, without, elsewhere)

    def figure(self, face: np.ndarray, title: str = "") -> "Figure":
        """Return `figure` of one face (*face.shape), explaining its most probable class; errors as for `heat`."""
        (explanation,) = self.explain(face[None])
        return figure(face, explanation, self.labels, title)


def _hottest(heat: np.ndarray, crop: int) -> np.ndarray:
    """Return the places hotter than all but _REGION of what the network sees; none where it is cold."""
    edge = (len(heat) - crop) // 2
    return heat > max(0.0, float(np.quantile(heat[edge : edge + crop, edge : edge + crop], 1 - _REGION)))


def _moved(region: np.ndarray, crop: int) -> np.ndarray:
    """Return regions (n, size, size) of a region's shape at random places of what the network sees, over its edges.

    The places are the same in each call.
    """
    edge, rng = (len(region) - crop) // 2, np.random.default_rng(0)
    inside = np.s_[edge : edge + crop, edge : edge + crop]
    moved = np.zeros((_RANDOM, *region.shape), bool)
    for each, offset in zip(moved, rng.integers(0, crop, (_RANDOM, 2)).tolist(), strict=True):
        each[inside] = np.roll(region[inside], offset, (0, 1))
    return moved
