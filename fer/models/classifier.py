"""EmotionClassifier: a network and all that its use needs: labels, face format, crop, and what it was trained on."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from fer.data.source import FaceFormat
from fer.errors import InputError
from fer.models.crops import center_crop, ten_crop
from fer.models.hyper_parameters import upgraded
from fer.models.networks import FaceNetwork, to_unit
from fer.models.registry import build_network, network_name

if TYPE_CHECKING:
    from fer.data.inputs import Picture

#: What a checkpoint knows its training by, as `FaceDataModule.identities` gives it.
IDENTITIES = ("train_rows", "train_faces", "val_rows")


class EmotionClassifier(nn.Module):
    """Names faces uint8 (N, C, size, size): called with them it returns logits (N, classes).

    It is an ordinary torch module: in train mode dropout and batch norm train, and the logits have gradients. It crops
    alike in both modes, as augmentation is a part of its own.

    Attributes:
        net: the network. It takes the middle ``crop`` x ``crop`` pixels of each face.
        labels: the classes, in the order of the logits.
        face: the format of its faces: ``size`` in pixels, ``color`` and ``margin``.
        crop: the side in pixels of what the network sees.
        hyper_parameters: of its training, plain data as a checkpoint holds them.
        identities: hashes of the rows and faces that it was trained and selected on, by which evaluation knows them.
    """

    net: FaceNetwork

    def __init__(
        self,
        net: FaceNetwork,
        labels: list[str],
        face: FaceFormat,
        crop: int,
        hyper_parameters: dict[str, Any],
        identities: dict[str, Tensor] | None = None,
    ) -> None:
        super().__init__()
        self.net, self.labels, self.face, self.crop = net, labels, face, crop
        self.hyper_parameters = hyper_parameters
        self.identities: dict[str, Tensor] = identities or {}

    @classmethod
    def build(cls, hyper_parameters: dict[str, Any], download: bool = True) -> "EmotionClassifier":
        """Build a classifier with fresh weights from the hyper-parameters of a training.

        ``download=False`` leaves out the pretrained weights that ``model`` names, for a checkpoint that brings its own.

        Raises:
            InputError: a network that cannot be built.
            KeyError, TypeError, ValueError: not the hyper-parameters of a training.
        """
        hyper_parameters = upgraded(hyper_parameters)
        labels, face = list(hyper_parameters["labels"]), FaceFormat(**hyper_parameters["face"])
        return cls(
            net=build_network(hyper_parameters["model"], len(labels), download, _channels(face)),
            labels=labels,
            face=face,
            crop=hyper_parameters["augment"].get("crop") or face.size,
            hyper_parameters=hyper_parameters,
        )

    @property
    def name(self) -> str:
        """The architecture, e.g. "vgg_small"."""
        return network_name(self.hyper_parameters["model"])

    @property
    def data(self) -> dict[str, Any]:
        """The data it was trained on: ``name`` of the set, prepared ``file``, and whether they are ``drawn``."""
        return self.hyper_parameters["data"]

    @property
    def drawn(self) -> bool:
        """Whether it was trained on the drawn sample, so that it says nothing about real faces."""
        return bool(self.data["drawn"])

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.net.parameters()).device

    def preprocess(self, pictures: "Picture | Iterable[Picture]") -> Tensor:
        """Return faces as they are to be given: uint8 (N, C, size, size), on the network's device.

        ``pictures`` is one picture that is a face, or several: each a file, an http(s) address, a file's bytes, a PIL
        image, an array or a tensor, as `fer.data.inputs.to_array` takes them, or many in one array (N, h, w[, 3]) or
        tensor (N, 1 or 3, H, W). Or it is what a `fer.Predictor` gave for a photo, whose faces are cut out of it as
        the predictor cuts them. Colour and size become those of the training, the aspect is not kept.

        Raises:
            InputError: a picture that can't be read or is none.
        """
        # here, as who has faces already needs no decoders
        from fer.data.inputs import is_one, to_array
        from fer.data.photos import channels_first, fit

        if (cut := getattr(pictures, "cut", None)) is not None:
            faces = cut(self.face)
        else:
            several: Any = [pictures] if is_one(pictures) else pictures
            faces = [fit(to_array(picture), self.face) for picture in several]
        stacked = np.stack(faces) if len(faces) else np.zeros((0, *self.face.shape), np.uint8)
        return torch.from_numpy(channels_first(stacked)).to(self.device)

    def forward(self, faces: Tensor, average_ten_crop: bool = False) -> Tensor:
        """Return logits (N, classes) of faces uint8 (N, C, size, size): of the centre crop or the mean of ten.

        Raises:
            InputError: any others, such as floats in [0, 1] or faces of another size; `preprocess` makes them.
        """
        if average_ten_crop:
            return self.ten_crop_logits(faces, self.crop)
        self._require_faces(faces)
        return self.net(to_unit(center_crop(faces, self.crop)))

    def ten_crop_logits(self, faces: Tensor, size: int) -> Tensor:
        """Return the mean logits (N, classes) of ten crops of ``size`` pixels; errors as for `forward`."""
        self._require_faces(faces)
        crops = ten_crop(faces, size)
        logits = self.net(to_unit(crops.flatten(0, 1)))
        return logits.view(len(faces), crops.shape[1], -1).mean(1)

    def _require_faces(self, faces: Tensor) -> None:
        """Refuse what would be named wrongly, by type and shape alone: the values may lie on a device."""
        wanted = (_channels(self.face), self.face.size, self.face.size)
        if isinstance(faces, Tensor) and faces.dtype == torch.uint8 and faces.shape[1:] == wanted:
            return
        shown = f"{faces.dtype} {tuple(faces.shape)}" if isinstance(faces, Tensor) else type(faces).__name__
        raise InputError(
            f"faces: {self.name} takes a tensor torch.uint8 (N, {', '.join(map(str, wanted))}) of values 0..255, got "
            f"{shown}; model.preprocess(pictures) makes it"
        )


def _channels(face: FaceFormat) -> int:
    return 1 if face.color == "grey" else 3
