"""EmotionClassifier: a network and all that its use needs: labels, face format, crop, and what it was trained on."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fer.data.source import FaceFormat
from fer.models.crops import center_crop, ten_crop
from fer.models.hyper_parameters import upgraded
from fer.models.networks import FaceNetwork, to_unit
from fer.models.registry import build_network, network_name

#: What a checkpoint knows its training by, as `FaceDataModule.identities` gives it.
IDENTITIES = ("train_rows", "train_faces", "val_rows")


@dataclass(eq=False, slots=True)
class EmotionClassifier:
    """Names faces uint8 (N, C, size, size): called with them it returns logits (N, classes).

    ``net`` sees squares of ``crop`` pixels of faces of the format ``face``, and gives a logit for each of ``labels``.
    ``hyper_parameters`` are those of its training, plain data as a checkpoint holds them. ``identities`` are the hashes
    of the rows and faces that it was trained and selected on, by the names of `IDENTITIES`.
    """

    net: FaceNetwork
    labels: list[str]
    face: FaceFormat
    crop: int
    hyper_parameters: dict[str, Any]
    identities: dict[str, Tensor] = field(default_factory=dict)

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
        channels = 1 if face.color == "grey" else 3
        return cls(
            net=build_network(hyper_parameters["model"], len(labels), download, channels),
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

    def __call__(self, faces: Tensor, average_ten_crop: bool = False) -> Tensor:
        """Return logits (N, classes) of faces uint8 (N, C, size, size): of the centre crop or the mean of ten."""
        if average_ten_crop:
            return self.ten_crop_logits(faces, self.crop)
        return self.net(to_unit(center_crop(faces, self.crop)))

    def ten_crop_logits(self, faces: Tensor, size: int) -> Tensor:
        """Return the mean logits (N, classes) of ten crops of ``size`` pixels."""
        crops = ten_crop(faces, size)
        logits = self.net(to_unit(crops.flatten(0, 1)))
        return logits.view(len(faces), crops.shape[1], -1).mean(1)
