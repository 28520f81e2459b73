"""The head of every network: what gives the logits, what a temperature divides, and what other classes replace."""

import contextlib

import pytest
import torch
from torch import nn

from fer.models.backbones import names
from fer.models.checkpoint import divide_logits
from fer.models.classifier import EmotionClassifier
from fer.models.networks import RESNET, VGG
from fer.models.registry import OWN as OWN_NETWORK
from fer.models.registry import TORCHVISION, build_network

OWN = [("fer", name) for name in (*VGG, *RESNET)]
#: One of each kind of backbone, as small as there is; of the others, widths and depths alone are different.
SMALL = [
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "googlenet", "inception_v3", "maxvit_t", "mnasnet0_5",
    "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf", "resnet18", "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t",
    "swin_v2_t", "vgg11_bn", "vit_b_32",
]  # fmt: skip


def slow(networks):
    return [pytest.param(*network, marks=pytest.mark.slow) for network in networks]


def classifier(library, name, size):
    """Return a classifier with fresh weights for RGB faces of 7 classes."""
    torch.manual_seed(0)
    return EmotionClassifier.build(
        {
            "model": {"name": name, "library": library, "in_channels": 3, "dropout": 0.5},
            "labels": list("abcdefg"), "face": {"size": size, "color": "rgb"},
            "augment": {"crop": size}, "data": {},
        }
    )  # fmt: skip


@contextlib.contextmanager
def without_values():
    """Let new parameters have shapes alone; torch's meta device would do it, but RegNets reckon with tensors."""
    register = nn.Module.register_parameter
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            nn.Module,
            "register_parameter",
            lambda self, name, value: register(self, name, value if value is None else nn.Parameter(value.to("meta"))),
        )
        yield


def shapes(library, name, classes=7):
    """Return a network without values, and the shape of each tensor in its state."""
    target = OWN_NETWORK if library == "fer" else TORCHVISION
    with without_values():
        network = build_network({"_target_": target, "name": name}, classes)
    return network, {key: values.shape for key, values in network.state_dict().items()}


FAST = [*OWN, *(("torchvision", name) for name in SMALL)]
BACKBONES = [("torchvision", name) for name in names()]


@pytest.mark.parametrize(("library", "name"), [*FAST, *slow(network for network in BACKBONES if network not in FAST)])
def test_the_head_is_what_depends_on_the_number_of_classes(library, name):
    network, seven = shapes(library, name)
    _, eight = shapes(library, name, 8)
    head = {key for key in seven if seven[key] != eight[key]}
    assert head == set(network.head_state())
    # a bias has a number a class, of a network that has one
    assert {seven[key][0] for key in head} == {7} and len(head) == len(list(network.head.parameters()))
    assert isinstance(network.head, nn.Linear | nn.Conv2d)


# what takes less than five seconds
QUICK = [
    ("fer", "vgg_small"), ("fer", "resnet18"), ("torchvision", "shufflenet_v2_x0_5"), ("torchvision", "squeezenet1_1"),
    ("torchvision", "maxvit_t"),
]  # fmt: skip
OTHERS = [network for network in (*OWN, *(("torchvision", name) for name in SMALL)) if network not in QUICK]


@pytest.mark.parametrize(("library", "name"), [*QUICK, *slow(OTHERS)])
@torch.inference_mode()
def test_a_temperature_divides_the_logits(library, name):
    network, _ = shapes(library, name)
    model = classifier(library, name, network.largest or max(32, network.smallest))
    model.net.eval()
    # fresh heads are small, and some begin at 0
    for values in model.net.head.parameters():
        values.normal_()
    faces = torch.randint(0, 256, (1, 3, model.crop, model.crop), dtype=torch.uint8)
    before = model(faces)
    assert before.shape == (1, 7) and before.abs().max() > 0.1
    divide_logits(model, 2.5)
    torch.testing.assert_close(model(faces), before / 2.5, rtol=1e-4, atol=1e-5)


def test_a_head_without_bias_is_one():
    network, state = shapes("torchvision", "maxvit_t")
    assert network.head.bias is None and len(network.head_state()) == 1
    # the last two tensors of its state are not a pair: dividing both by a temperature was wrong
    assert list(state)[-2:] != network.head_state()
