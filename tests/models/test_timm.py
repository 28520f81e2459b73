"""timm's networks behind our contract: heads, sizes, normalisation, checkpoints, a run of one epoch, and refusals."""

import json
import sys

import pytest
import timm
import torch
from torch import nn

from fer import Predictor
from fer.data.source import FaceFormat
from fer.data.storage.hdf5 import read_column
from fer.errors import InputError
from fer.models.checkpoint import divide_logits, load_checkpoint
from fer.models.classifier import EmotionClassifier
from fer.models.registry import TIMM
from fer.models.timm_networks import timm_network
from fer.training.run import train
from tests.conftest import train_config, write_tiny

#: Small ones of several kinds; those of the last line have several heads, or a head with layers that keep their shape.
SMALL = [
    "resnet10t", "mobilenetv3_small_050", "vit_tiny_patch16_224", "convnext_atto", "swin_tiny_patch4_window7_224",
    "crossvit_tiny_240", "deit_tiny_distilled_patch16_224", "levit_128s", "repvit_m0_9", "caformer_s18",
]  # fmt: skip
#: The first network of each of timm's files, as it is named there.
FAMILIES = [timm.list_models(module=module)[0] for module in timm.list_modules()]
#: The first network that nobody has published weights of.
BARE = next(name for name in timm.list_models() if not timm.list_pretrained(f"{name}*"))


def slow(names):
    return [pytest.param(name, marks=pytest.mark.slow) for name in names]


@pytest.mark.parametrize("name", [*SMALL, *slow(name for name in FAMILIES if name not in SMALL)])
def test_the_head_is_what_depends_on_the_number_of_classes(name):
    with torch.device("meta"):
        network, other = timm_network(7, name), timm_network(8, name)
    seven, eight = network.state_dict(), other.state_dict()
    assert seven.keys() == eight.keys()
    depends = {key for key in seven if seven[key].shape != eight[key].shape}
    assert depends and depends == set(network.head_state())
    # the size it was made for, as some take few others
    size = timm.get_pretrained_cfg(name).input_size[-1]
    with torch.device("meta"):
        assert network.eval()(torch.rand(2, 1, size, size)).shape == (2, 7)


def classifier(name, size, **model):
    torch.manual_seed(0)
    return EmotionClassifier.build(
        {
            "model": {"_target_": TIMM, "name": name, **model}, "labels": list("abcdefg"),
            "face": {"size": size, "color": "grey"}, "augment": {"crop": size}, "data": {},
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("resnet10t", {}), ("mobilenetv3_small_050", {}), ("convnext_atto", {"drop_path": 0.1}),
        ("vit_tiny_patch16_224", {"image_size": 48}), ("deit_tiny_distilled_patch16_224", {"image_size": 48}),
        ("levit_128s", {"image_size": 64}),
    ],
)  # fmt: skip
@torch.inference_mode()
def test_a_temperature_divides_the_logits(name, model):
    model = classifier(name, model.get("image_size", 48), **model)
    model.net.eval()
    for values in model.net.head.parameters():
        values.normal_()
    faces = torch.randint(0, 256, (1, 1, model.crop, model.crop), dtype=torch.uint8)
    before = model(faces)
    assert before.shape == (1, 7) and before.abs().max() > 0.1
    divide_logits(model, 2.5)
    torch.testing.assert_close(model(faces), before / 2.5, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_logits_are_timms_of_normalised_images():
    model = timm_network(7, "resnet10t", mean=[0.5, 0.4, 0.3], std=[0.2, 0.25, 0.5]).eval()
    reference = timm.create_model("resnet10t", num_classes=7).eval()
    reference.load_state_dict(model.network.state_dict())
    images = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    expected = torch.stack([(images[:, 0] - 0.5) / 0.2, (images[:, 1] - 0.4) / 0.25, (images[:, 2] - 0.3) / 0.5], dim=1)
    torch.testing.assert_close(model(images), reference(expected))


def test_dropout_and_drop_path_reach_the_network():
    model = timm_network(7, "convnext_atto", dropout=0.3, drop_path=0.2)
    assert {layer.p for layer in model.modules() if isinstance(layer, nn.Dropout)} >= {0.3}
    rates = [layer.drop_prob for layer in model.modules() if isinstance(layer, timm.layers.DropPath)]
    # rising linearly to the last block's
    assert max(rates) == pytest.approx(0.2) and rates == sorted(rates)


def test_weights_bring_their_normalisation_without_the_download():
    with torch.device("meta"):
        grey = timm_network(7, "resnet10t.c3_in1k", pretrained=True, in_channels=1, download=False)
        assert grey(torch.rand(2, 1, 48, 48)).shape == (2, 7)
    imagenet = timm_network(7, "resnet10t", pretrained=True, download=False)
    assert imagenet.mean.flatten().tolist() == pytest.approx([0.485, 0.456, 0.406])
    assert imagenet.std.flatten().tolist() == pytest.approx([0.229, 0.224, 0.225])
    # Google's vision transformers were trained with 0.5
    halves = timm_network(7, "vit_tiny_patch16_224", pretrained=True, download=False)
    assert halves.mean.flatten().tolist() == halves.std.flatten().tolist() == [0.5] * 3
    given = timm_network(7, "resnet10t", True, mean=[0.1] * 3, std=[0.2] * 3, download=False)
    assert given.mean.flatten().tolist() == pytest.approx([0.1] * 3)


@pytest.mark.parametrize("image_size", [None, 48])
def test_networks_of_one_size_say_so(image_size):
    size = image_size or 224
    with torch.device("meta"):
        model = timm_network(7, "vit_tiny_patch16_224", image_size=image_size)
        assert model(torch.rand(2, 1, size, size)).shape == (2, 7)
        with pytest.raises(InputError, match=f"needs images of exactly {size} pixels a side, not 44x44") as caught:
            model(torch.rand(2, 1, 44, 44))
    assert ("give model.image_size=" in str(caught.value)) == (image_size is None)


@pytest.mark.parametrize(
    ("name", "taken", "refused"),
    # a stage that halves to nothing; sums of maps that are halved and doubled; a size that timm states
    [("convnext_atto", 32, 24), ("dla34", 64, 44), ("bat_resnext26ts", 256, 224)],
)
def test_sizes_that_a_network_cannot_take_are_one_line(name, taken, refused):
    with torch.device("meta"):
        model = timm_network(7, name)
        assert model(torch.rand(2, 1, taken, taken)).shape == (2, 7)
        with pytest.raises(InputError, match=rf"^{name} .*{refused}x{refused}.*(another size).*$") as caught:
            model(torch.rand(2, 1, refused, refused))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"name": "convnext_tyni"}, ["convnext_tyni", "convnext_tiny"]),
        ({"name": "hf-hub:somebody/network"}, ["hf-hub:somebody/network", "timm.list_models()"]),
        ({"name": "local-dir:/tmp"}, ["local-dir:/tmp"]),
        ({"name": "resnet10t.nothing"}, ["resnet10t.nothing", "resnet10t.c3_in1k"]),
        ({"name": "vit_tiny_patch16_224_in21k"}, ["renamed", "vit_tiny_patch16_224.augreg_in21k"]),
        ({"name": "resnet10t", "image_size": 48}, ["image_size=48", "leave image_size out"]),
        ({"name": "vgg11", "drop_path": 0.1}, ["drop_path=0.1", "leave drop_path out"]),
        ({"name": "vit_tiny_patch16_224", "image_size": -1}, ["image_size=-1"]),
        ({"name": "resnet10t", "drop_path": 1.0}, ["drop_path=1.0"]),
        ({"name": "resnet10t", "dropout": 1.5}, ["dropout=1.5"]),
        ({"name": "resnet10t", "in_channels": 2}, ["in_channels=2"]),
        ({"name": "resnet10t", "num_classes": 1}, ["num_classes=1"]),
        ({"name": "resnet10t", "pretrained": True, "mean": [0.5] * 3}, ["std"]),
        ({"name": BARE, "pretrained": True}, [BARE, "pretrained=false"]),
    ],
)
def test_what_cannot_be_built_is_refused(arguments, named):
    with torch.device("meta"), pytest.raises(InputError) as caught:
        timm_network(**{"num_classes": 7, **arguments})
    assert all(word in str(caught.value) for word in named)
    assert "\n" not in str(caught.value)


def test_a_size_that_a_network_is_built_for_but_cannot_take_is_one_line():
    with torch.device("meta"):
        model = timm_network(7, "crossvit_9_240", image_size=48)
        with pytest.raises(InputError, match=r"^crossvit_9_240 cannot take images of 48x48 pixels.*another size"):
            model(torch.rand(2, 1, 48, 48))


def test_without_timm_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=r'^model=timm needs the package timm: pip install "\.\[timm\]"$'):
        timm_network(7, "resnet10t")


def test_a_run_is_saved_and_loaded_with_the_same_logits(tmp_path):
    file = write_tiny(tmp_path / "grey.h5", {"train": 14, "val": 14}, FaceFormat(size=40))
    changes = {
        "data.size": 40, "augment.crop": 36, "trainer.max_epochs": 1, "batch_size": 7, "model.drop_path": 0.1,
        "model.name": "mobilenetv3_small_050", "model.in_channels": 1,
    }  # fmt: skip
    train(train_config(file, model="timm", **changes), tmp_path / "run")
    path = tmp_path / "run/checkpoints/best.ckpt"
    model = load_checkpoint(path)
    faces = torch.randint(0, 256, (2, 1, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    # the file's tensors in a network that timm itself makes
    reference = timm.create_model("mobilenetv3_small_050", num_classes=7, in_chans=1).eval()
    saved = torch.load(path, weights_only=True)["state_dict"]
    reference.load_state_dict({key.removeprefix("net.network."): values for key, values in saved.items()})
    with torch.inference_mode():
        torch.testing.assert_close(model(faces), reference(faces[..., 2:38, 2:38] / 255), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_network_of_timm_goes_through_all_doors(tmp_path, run):
    file = write_tiny(tmp_path / "grey.h5", {"train": 70, "val": 21}, FaceFormat(size=40))
    data = ["data=fer2013", f"data.file={file}", "data.size=40"]
    network = ["model=timm", "model.name=resnet10t", "augment.crop=36", "batch_size=14", "optimizer=adamw"]
    trainer = ["trainer=cpu", "trainer.max_epochs=10", "trainer.enable_progress_bar=false", "hydra.run.dir=run"]
    run("train.py", *data, *network, *trainer, cwd=tmp_path)
    run("evaluate.py", "ckpt=run/checkpoints/best.ckpt", "device=cpu", "out=report", cwd=tmp_path)
    run("export.py", "ckpt=run/checkpoints/best.ckpt", "format=onnx", "out=resnet.onnx", cwd=tmp_path)
    report = json.loads((tmp_path / "report/report.json").read_text())
    # the same faces by the predictor, from the checkpoint and by ONNX Runtime
    faces, labels = read_column(file, "val", "image"), read_column(file, "val", "label")
    for path in ("run/checkpoints/best.ckpt", "resnet.onnx"):
        predictor = Predictor.load(tmp_path / path, faces="whole", device="cpu")
        assert predictor.network.name == "resnet10t"
        named = [predictor.labels.index(face.label) for (face,) in predictor.batch(list(faces))]
        assert (named == labels).mean() == pytest.approx(report["plain"]["accuracy"])
    assert report["plain"]["accuracy"] > 0.5
