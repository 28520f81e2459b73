"""Grad-CAM: where in a face the network saw what made it choose a class; heat maps, overlays and one figure.

The gradients come from torch's own hooks and autograd. A library (captum's ``LayerGradCam``, with which this agrees)
would replace a dozen lines of it and run the network twice; crop, layer names and pictures would still be here.
"""

from collections.abc import Sequence
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
from fer.models.checkpoint import load_checkpoint
from fer.models.classifier import EmotionClassifier
from fer.models.crops import center_crop
from fer.system.device import to_device

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def grad_cam(
    model: EmotionClassifier, faces: Tensor, layer: str | None = None, target: int | Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return heat maps float32 (N, size, size) in 0..1 and probabilities (N, classes) of uint8 (N, C, size, size).

    Selvaraju et al. 2017, "Grad-CAM", equations 1 and 2: heat = relu(sum_k w_k A_k), where A_k are the feature maps of
    a convolution and w_k the mean over a map of d logit / d A_k. The map is resized bilinearly to the crop that the
    network sees, put back where the crop lay in the face (0 around it), and divided by its largest value; where
    nothing speaks for the class it is 0 everywhere. ``layer`` is a key of `convolutions`, the last one if None;
    ``target`` a class index, or one a face (N,), the most probable class if None. ``model`` is in evaluation mode,
    ``faces`` are on its device.

    Raises:
        InputError: no convolution of that name, or none at all in the network.
    """
    convolution = find_convolution(model, layer)
    with torch.enable_grad():
        maps, logits = _activations(model, convolution, faces)
        classes = torch.as_tensor(logits.argmax(1) if target is None else target, device=logits.device)
        score = logits.gather(1, classes.expand(len(faces))[:, None]).sum()
        (gradients,) = torch.autograd.grad(score, maps)
    weights = gradients.mean((2, 3), keepdim=True)
    heat = (weights * maps.detach()).sum(1, keepdim=True).relu().float()
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


def find_convolution(model: EmotionClassifier, name: str | None = None) -> nn.Conv2d:
    """Return a convolution by name, the last one if None.

    Raises:
        InputError: no convolution of that name; the message lists those there are.
    """
    layers = convolutions(model)
    if not layers:
        raise InputError(f"{model.name} has no convolution whose maps Grad-CAM could show: use a network that has")
    if name is None:
        return list(layers.values())[-1]
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


def figure(
    face: np.ndarray, heat: np.ndarray, probabilities: np.ndarray, labels: Sequence[str], title: str = ""
) -> "Figure":
    """Return one picture of a face (h, w) or (h, w, 3 RGB), its probabilities (classes) as bars, and its heat map."""
    # here, as a page that shows heat maps alone needs no figures
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(11, 3.8), layout="constrained")
    FigureCanvasAgg(drawing)
    left, middle, right = drawing.subplots(1, 3, width_ratios=(1, 1.2, 1))
    left.imshow(face, cmap="gray", vmin=0, vmax=255)
    left.set_title("input", fontsize=10)
    best = int(np.argmax(probabilities))
    bars = middle.barh(
        range(len(labels)), probabilities, color=["C0" if index == best else "0.75" for index in range(len(labels))]
    )
    middle.bar_label(bars, [f"{value:.1%}" for value in probabilities], padding=3)
    middle.set_yticks(range(len(labels)), labels)
    middle.invert_yaxis()
    middle.set(xlim=(0, 1.18), xticks=[])
    middle.spines[["top", "right", "bottom"]].set_visible(False)
    middle.set_title("probability", fontsize=10)
    right.imshow(overlay(face, heat))
    right.set_title("Grad-CAM", fontsize=10)
    for axes in (left, right):
        axes.axis("off")
    for text in (*middle.get_yticklabels(), drawing.suptitle(title)):
        text.set_parse_math(False)  # a file called "a$b$c" is no formula
    return drawing


class Explainer:
    """A checkpoint that shows where it looked: faces as they are stored in a prepared file, to heat maps and pictures.

    ``labels`` are the class names in order, ``face`` the format of the faces it takes.
    """

    def __init__(self, model: EmotionClassifier, layer: str | None = None) -> None:
        find_convolution(model, layer)
        self.labels = tuple(model.labels)
        self.face = model.face
        self._model, self._layer = model, layer

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
        heat, probabilities = grad_cam(self._model, images, self._layer, target)
        return heat.cpu().numpy(), probabilities.cpu().numpy()

    def __call__(self, faces: np.ndarray, labels: Sequence[str] | None = None) -> list[np.ndarray]:
        """Return the overlay uint8 RGB (size, size, 3) of each face; arguments and errors as for `heat`."""
        return [overlay(face, heat) for face, heat in zip(faces, self.heat(faces, labels)[0], strict=True)]

    def figure(self, face: np.ndarray, title: str = "") -> "Figure":
        """Return `figure` of one face (*face.shape), explaining its most probable class; errors as for `heat`."""
        heat, probabilities = self.heat(face[None])
        return figure(face, heat[0], probabilities[0], self.labels, title)
