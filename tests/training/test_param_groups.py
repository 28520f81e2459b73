"""Which weights an optimiser decays and how fast each layer learns, against groups worked out by hand."""

import pytest
import torch
import torchvision
from torch import nn

from fer.models.networks import FaceNetwork
from fer.models.registry import build_network
from fer.training.param_groups import layers, make_optimizer
from fer.training.run import assemble
from tests.conftest import fit, train_config

SGD = {"_target_": "torch.optim.SGD", "lr": 0.1, "weight_decay": 0.01}
OWN = {"_target_": "fer.models.networks.own_network"}


def rates(optimizer, net):
    """The rate and the weight decay of each parameter, by its name."""
    names = {id(weight): name for name, weight in net.network.named_parameters()}
    return {
        names[id(weight)]: (group["lr"], group["weight_decay"])
        for group in optimizer.param_groups
        for weight in group["params"]
    }


def test_biases_and_norms_are_not_decayed():
    net = build_network(OWN | {"name": "vgg_small"}, 7)
    found = rates(make_optimizer(SGD, net, {"no_decay": True, "layer_decay": None}), net)
    # four convolutions, each with a norm behind it and two more layers, then the head
    decayed = {"0.weight", "4.weight", "8.weight", "12.weight", "19.weight"}
    assert {name for name, (_, decay) in found.items() if decay == 0.01} == decayed
    assert {decay for name, (_, decay) in found.items() if name not in decayed} == {0.0}
    assert len(found) == 18 and {rate for rate, _ in found.values()} == {0.1}


def test_layers_of_our_own_vgg_learn_slower_the_further_from_the_head():
    net = build_network(OWN | {"name": "vgg_small"}, 7)
    optimizer = make_optimizer(SGD, net, {"no_decay": False, "layer_decay": 0.5})
    found = {name: rate for name, (rate, _) in rates(optimizer, net).items()}
    for name, depth in {"19": 0, "12": 1, "13": 1, "8": 2, "9": 2, "4": 3, "5": 3, "0": 4, "1": 4}.items():
        for kind in ("weight", "bias"):
            assert found[f"{name}.{kind}"] == pytest.approx(0.1 * 0.5**depth)
    assert optimizer.param_groups[-1]["lr"] == 0.1


@pytest.mark.parametrize(
    ("name", "count"),
    # by their papers: a stem, the blocks, a head; ConvNeXt also has three layers between its stages
    [("resnet18", 1 + 8 + 1), ("resnet50", 1 + 16 + 1), ("vit_b_16", 1 + 12 + 1), ("convnext_tiny", 1 + 18 + 3 + 1),
     ("efficientnet_b0", 1 + 16 + 1 + 1), ("mobilenet_v2", 1 + 17 + 1 + 1), ("vgg11", 8 + 3)],
)  # fmt: skip
def test_a_block_of_torchvisions_is_a_layer(name, count):
    with torch.device("meta"):
        network = torchvision.models.get_model(name)
    found = layers(network)
    assert len(found) == count
    # each parameter once
    assert sorted(name for names in found for name in names) == sorted(dict(network.named_parameters()))


@pytest.mark.parametrize(
    ("name", "count"), [("vit_tiny_patch16_224", 1 + 12 + 1), ("convnext_atto", 1 + 12 + 3 + 1), ("resnet18", 10)]
)
def test_a_block_of_timms_is_a_layer(name, count):
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        network = timm.create_model(name)
    assert len(layers(network)) == count


def test_timms_own_list_is_not_decayed():
    pytest.importorskip("timm")
    net = build_network({"_target_": "fer.models.timm_networks.timm_network", "name": "vit_tiny_patch16_224"}, 7)
    found = rates(make_optimizer(SGD, net, {"no_decay": True, "layer_decay": None}), net)
    assert found["pos_embed"][1] == found["cls_token"][1] == 0 and found["blocks.0.attn.qkv.weight"][1] == 0.01


def test_a_parameter_that_two_layers_share_is_in_one_group():
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    network[1].weight = network[0].weight
    net = FaceNetwork(network, "shared", 1, 1, head="2")
    optimizer = make_optimizer(SGD, net, {"no_decay": True, "layer_decay": 0.5})
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 5


def test_what_is_not_of_the_network_has_the_full_rate():
    net = build_network(OWN | {"name": "vgg_small"}, 7)
    other = nn.Parameter(torch.ones(2, 2))
    optimizer = make_optimizer(SGD, net, {"no_decay": True, "layer_decay": 0.5}, [other])
    assert [group["lr"] for group in optimizer.param_groups for w in group["params"] if w is other] == [0.1]


def test_without_groups_the_optimizer_is_the_one_of_before(tiny, tmp_path):
    _, module, _, _ = assemble(train_config(tiny), tmp_path)
    fresh = torch.optim.SGD(module.net.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4)
    assert module.optimizer().state_dict() == fresh.state_dict()


def test_the_last_layers_move_further_in_a_run(tiny, tmp_path):
    # a rate of almost nothing for all but the head
    options = {"param_groups.layer_decay": 1e-6, "param_groups.no_decay": True, "optimizer": "adamw"}
    _, module, _, _ = assemble(train_config(tiny, **options), tmp_path / "fresh")
    before = {name: values.clone() for name, values in module.net.named_parameters()}
    _, trained = fit(train_config(tiny, **options, **{"trainer.max_epochs": 1}), tmp_path / "run")
    moved = {
        name: float((values - before[name]).detach().abs().max()) for name, values in trained.net.named_parameters()
    }
    assert moved["network.19.weight"] > 0.01 and max(moved[name] for name in list(moved)[:-2]) < 1e-5
