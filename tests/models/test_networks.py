import io

import pytest
import torch
import torchvision
from torch import nn

from fer.errors import InputError
from fer.models.backbones import torchvision_network
from fer.models.networks import RESNET, VGG, own_network

OWN = [*VGG, *RESNET]


def images(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def copy_in_order(source: nn.Module, target: nn.Module) -> None:
    """Copy parameters and buffers of equal shapes from one network to another that names them differently."""
    pairs = list(zip(source.state_dict().values(), target.state_dict().values(), strict=True))
    for given, taken in pairs:
        assert given.shape == taken.shape
        taken.copy_(given)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # Measured on the earlier programs (VGG, ResNet18).
        ("vgg11", 9_229_575),
        ("vgg13", 9_414_471),
        ("vgg16", 14_726_727),
        ("vgg19", 20_038_983),
        ("resnet18", 11_172_423),
        # The well-known CIFAR-10 counts 21,282,122 and 23,520,842 less three classes of 513 and 2,049.
        ("resnet34", 21_280_583),
        ("resnet50", 23_514_695),
        # By hand: 960 + 18,624 + 74,112 + 147,840 for conv and norm, 903 for the linear layer.
        ("vgg_small", 242_439),
    ],
)
def test_parameter_counts(name, parameters):
    with torch.device("meta"):
        model = own_network(7, name, in_channels=3)
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters


@pytest.mark.parametrize("name", OWN)
def test_shapes_at_every_size(name):
    with torch.device("meta"):
        rgb_or_grey, grey_only = (own_network(8, name, in_channels=channels) for channels in (3, 1))
        for size in (44, 48, 88, 96, 224):
            for model, channels in ((rgb_or_grey, 3), (rgb_or_grey, 1), (grey_only, 1)):
                assert model(torch.rand(2, channels, size, size)).shape == (2, 8)


# Networks are compared in training mode: with batch norm's first running statistics the signal fades to nothing in
# the deep ones and everything would be close to everything.


@pytest.mark.parametrize("name", ["vgg_small", "vgg19", "resnet18"])
@torch.no_grad()
def test_grey_is_repeated_to_three_channels(name):
    torch.manual_seed(0)
    model = own_network(7, name, dropout=0)
    grey = images(4, 1, 48, 48)
    logits = model(grey)
    assert (logits[0] - logits[1]).abs().max() > 0.01
    torch.testing.assert_close(logits, model(grey.repeat(1, 3, 1, 1)), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@torch.no_grad()
def test_resnet_is_torchvisions_with_a_small_stem(name):
    torch.manual_seed(0)
    reference = torchvision.models.get_model(name, num_classes=7)
    reference.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    reference.maxpool = nn.Identity()
    model = own_network(7, name, dropout=0)
    copy_in_order(reference, model)
    batch = images(4, 3, 44, 44)
    expected = reference(batch)
    assert (expected[0] - expected[1]).abs().max() > 0.1
    torch.testing.assert_close(model(batch), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("name", "letter"), [("vgg11", "A"), ("vgg13", "B"), ("vgg16", "D"), ("vgg19", "E")])
@torch.no_grad()
def test_vgg_is_torchvisions_with_one_linear_layer(name, letter):
    torch.manual_seed(0)
    features = torchvision.models.vgg.make_layers(torchvision.models.vgg.cfgs[letter], batch_norm=True)
    linear = nn.Linear(512, 7)
    model = own_network(7, name, dropout=0)
    copy_in_order(nn.Sequential(features, linear), model)
    batch = images(4, 3, 44, 44)
    last_map = features(batch)
    assert last_map.shape == (4, 512, 1, 1)
    expected = linear(last_map.flatten(1))
    assert (expected[0] - expected[1]).abs().max() > 0.1
    torch.testing.assert_close(model(batch), expected, rtol=1e-3, atol=1e-3)


def test_dropout_is_the_last_but_one_layer():
    for model in (
        own_network(7, "vgg_small", dropout=0.3),
        torchvision_network(7, "shufflenet_v2_x0_5", dropout=0.3),
        torchvision_network(7, "mobilenet_v3_small", dropout=0.3),
    ):
        layers = [layer for layer in model.modules() if not list(layer.children())]
        assert [type(layer) for layer in layers[-2:]] == [nn.Dropout, nn.Linear]
        assert [layer.p for layer in layers if isinstance(layer, nn.Dropout)] == [0.3]


@torch.no_grad()
def test_normalisation_acts_on_the_input_and_travels_with_the_weights():
    torch.manual_seed(0)
    plain = own_network(7, "vgg_small").eval()
    torch.manual_seed(0)
    normalised = own_network(7, "vgg_small", mean=[0.5, 0.4, 0.3], std=[0.2, 0.25, 0.5]).eval()
    batch = images(2, 3, 44, 44)
    by_hand = torch.stack([(batch[:, 0] - 0.5) / 0.2, (batch[:, 1] - 0.4) / 0.25, (batch[:, 2] - 0.3) / 0.5], dim=1)
    torch.testing.assert_close(normalised(batch), plain(by_hand))

    file = io.BytesIO()
    torch.save(normalised.state_dict(), file)
    file.seek(0)
    loaded = own_network(7, "vgg_small", mean=[0, 0, 0], std=[1, 1, 1]).eval()
    loaded.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(loaded(batch), normalised(batch))


@pytest.mark.parametrize(
    "backbone",
    [
        "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1", "efficientnet_b0", "resnet18", "convnext_tiny",
        "mnasnet0_5", "regnet_y_400mf", "swin_t", "googlenet",
    ],
)  # fmt: skip
def test_torchvision_backbones_take_small_grey_faces(backbone):
    # RegNet's own code reads values while it is built
    with torch.device("cpu" if backbone.startswith("regnet") else "meta"):
        model = torchvision_network(7, backbone)
        # Training mode: some of torchvision's networks return auxiliary logits there.
        assert model.train()(torch.rand(2, 1, 48, 48)).shape == (2, 7)


@pytest.mark.parametrize(("backbone", "size"), [("vit_b_16", 224), ("maxvit_t", 224)])
def test_backbones_of_one_size_say_so(backbone, size):
    with torch.device("meta"):
        model = torchvision_network(7, backbone)
        assert model(torch.rand(1, 1, size, size)).shape == (1, 7)
        for wrong in (48, 256):
            with pytest.raises(InputError, match=f"{backbone} needs images of exactly {size} .* {wrong}x{wrong}"):
                model(torch.rand(1, 1, wrong, wrong))


@pytest.mark.parametrize(("backbone", "smallest"), [("inception_v3", 75), ("alexnet", 63), ("densenet121", 29)])
def test_backbones_for_larger_images_say_so(backbone, smallest):
    with torch.device("meta"):
        model = torchvision_network(7, backbone)
        assert model(torch.rand(2, 1, smallest, smallest)).shape == (2, 7)
        with pytest.raises(InputError, match=f"{backbone} needs images of at least {smallest} pixels"):
            model(torch.rand(2, 1, smallest - 1, smallest))


def test_weights_bring_their_normalisation_without_the_download():
    arguments = {"num_classes": 7, "weights": "DEFAULT", "download": False}
    with torch.device("meta"):
        vit = torchvision_network(7, "vit_b_16", weights="IMAGENET1K_SWAG_E2E_V1", download=False)
        assert vit(torch.rand(1, 3, 384, 384)).shape == (1, 7)
    resnet = torchvision_network(name="resnet18", **arguments)
    assert resnet.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert resnet.std.flatten().tolist() == pytest.approx([0.229, 0.224, 0.225])
    # For these two torchvision's transform_input turns ImageNet's scaling of x into (x - 0.5) / 0.5.
    googlenet = torchvision_network(name="googlenet", **arguments)
    assert googlenet.mean.flatten().tolist() == googlenet.std.flatten().tolist() == [0.5] * 3
    given = torchvision_network(name="resnet18", mean=[0.1] * 3, std=[0.2] * 3, **arguments)
    assert given.mean.flatten().tolist() == pytest.approx([0.1] * 3)


@pytest.mark.parametrize("backbone", ["shufflenet_v2_x0_5", "googlenet"])
@torch.no_grad()
def test_pretrained_backbones_give_torchvisions_output(backbone, tmp_path, monkeypatch):
    """Random weights stand where torch keeps its downloads; torchvision's last layer is put back to compare."""
    weights = torchvision.models.get_model_weights(backbone)["IMAGENET1K_V1"]
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    arguments = {"init_weights": False} if backbone == "googlenet" else {}
    torch.manual_seed(1)
    published = torchvision.models.get_model(backbone, weights=None, **arguments)
    torch.save(published.state_dict(), tmp_path / "checkpoints" / weights.url.rpartition("/")[2])

    reference = torchvision.models.get_model(backbone, weights=weights).eval()
    model = torchvision_network(1000, backbone, weights="IMAGENET1K_V1").eval()
    [*model.modules()][-1].load_state_dict(reference.fc.state_dict())
    batch = images(2, 3, 64, 64)
    expected = reference(weights.transforms(crop_size=64, resize_size=64)(batch))
    torch.testing.assert_close(model(batch), expected, rtol=1e-4, atol=1e-5)


def test_a_failed_download_names_the_file_and_where_to_put_it(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    (tmp_path / "checkpoints").write_text("a file where torch wants a folder")
    with pytest.raises(InputError, match=r"resnet18-f37072fd\.pth .*checkpoints"):
        torchvision_network(7, "resnet18", weights="DEFAULT")


@pytest.mark.parametrize(
    ("build", "arguments", "named"),
    [
        (own_network, {"name": "vgg91"}, ["vgg91", "vgg19", "resnet50"]),
        (own_network, {"name": "convnext_tiny"}, ["model=torchvision model.name=convnext_tiny"]),
        (torchvision_network, {"name": "convnext_tyni"}, ["convnext_tyni", "convnext_tiny"]),
        (torchvision_network, {"name": "resnet50", "weights": "V2"}, ["V2", "IMAGENET1K_V2", "DEFAULT"]),
        (torchvision_network, {"name": "vgg16", "weights": "IMAGENET1K_FEATURES"}, ["IMAGENET1K_V1"]),
        (torchvision_network, {"name": "resnet18", "in_channels": 1}, ["in_channels=1"]),
        (own_network, {"name": "vgg19", "mean": [0.5, 0.5, 0.5]}, ["std"]),
        (own_network, {"name": "vgg19", "mean": [0.5], "std": [0.5]}, ["3 value"]),
        (own_network, {"name": "vgg19", "in_channels": 2}, ["in_channels=2"]),
        (own_network, {"name": "vgg19", "num_classes": 1}, ["num_classes=1"]),
        (own_network, {"name": "vgg19", "dropout": 1.5}, ["dropout=1.5"]),
    ],
)
def test_what_cannot_be_built_is_refused(build, arguments, named):
    with pytest.raises(InputError) as caught:
        build(**{"num_classes": 7, **arguments})
    assert all(word in str(caught.value) for word in named)
    assert "\n" not in str(caught.value)


def test_images_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="vgg_small .* in_channels=3"):
        own_network(7, "vgg_small", in_channels=1)(images(1, 3, 48, 48))
    with pytest.raises(InputError, match="vgg19 needs images of at least 32 pixels a side, not 31x40"):
        own_network(7, "vgg19")(images(1, 3, 40, 31))
