"""Checkpoints that are not as they should be: one line that says what is amiss, and nothing is built of it."""

import random
import sys
import zipfile

import pytest
import torch
from PIL import Image

from fer import Predictor
from fer.deployment.export import export_onnx, export_weights
from fer.errors import InputError
from fer.evaluation.run import evaluate
from fer.models.checkpoint import load_checkpoint
from fer.models.classifier import EmotionClassifier
from fer.targets import locate
from fer.training.run import assemble
from tests.conftest import fit, train_config, write_tiny


@pytest.fixture(scope="module")
def ckpt(tmp_path_factory):
    """A trained checkpoint, which the tests do not change."""
    folder = tmp_path_factory.mktemp("checkpoint")
    file = write_tiny(folder / "tiny.h5", {"train": 70, "val": 14})
    fit(train_config(file, **{"trainer.max_epochs": 1}), folder / "run")
    return folder / "run/checkpoints/last.ckpt"


def changed(ckpt, path, change):
    content = torch.load(ckpt, weights_only=True)
    change(content)
    torch.save(content, path)
    return path


def refused(path, message):
    with pytest.raises(InputError) as caught:
        load_checkpoint(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and message in text and "\n" not in text and len(text) < 600


def put(*keys):
    *way, last, value = keys

    def change(content):
        at = content
        for key in way:
            at = at[key]
        at[last] = value

    return change


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        (("face", "size"), 10**7, "face.size=10000000 is not a whole number of 1 to 1024 pixels"),
        (("face", "size"), True, "face.size=True is not a whole number"),
        (("face", "color"), "blue", "face.color='blue' is not grey or rgb"),
        (("face", "margin"), float("nan"), "face.margin=nan is not a fraction of 0 to 2"),
        (("face", "evil"), 1, "has not just the keys size, color and margin"),
        (("augment", "crop"), 21, "augment.crop=21 does not fit face.size=20"),
        (("augment", "crop"), "16", "augment.crop='16' is not of type int"),
        (("augment",), {"flip": 0.5}, "augment.crop is missing"),
        (("augment",), {"_target_": "my_lab.Mine", "crop": 21}, "augment.crop=21 does not fit face.size=20"),
        (("augment",), {"_target_": "my_lab.Mine", "crop": 0.8}, "augment.crop=0.8 is not of type int"),
        (("augment", "_target_"), ["my_lab.Mine"], "augment._target_=['my_lab.Mine'] is not a name"),
        (("labels",), ["a"] * 7, "is not a list of 2 to 10,000 different texts"),
        (("labels",), [f"{i}" for i in range(10_001)], "is not a list of 2 to 10,000 different texts"),
        (("labels",), "Happy", "labels='Happy' is not a list of texts"),
        (("model", "name"), ["vgg_small"], "model.name=['vgg_small'] is not of type str"),
        (("model", "name"), "vgg_smal", "unknown model name='vgg_smal'; valid: "),
        (("model", "library"), "os", "model.library='os' is not fer or torchvision"),
        (("model", "dropout"), "half", "model.dropout=half: not a finite number"),
        (("model", "download"), True, "model.download=True: is given to"),
        (("data", "drawn"), "no", "data.drawn='no' is not of type bool"),
        (("data", "file"), None, "data.file=None is not of type str"),
        (("epochs",), "many", "epochs='many' is not of type int"),
        (("optimizer",), [1], "optimizer=[1] is no mapping"),
        (("recipe",), "mixed", "recipe='mixed' is no mapping"),
        (("loss",), "focal", "loss='focal' is no mapping"),
        (("counts",), [-1], "counts=[-1] is not a list of numbers of faces"),
        (("evil",), 1, "unknown hyper-parameters evil"),
    ],
)
def test_hyper_parameters_are_checked(ckpt, tmp_path, where, value, message):
    refused(changed(ckpt, tmp_path / "x.ckpt", put("hyper_parameters", *where, value)), message)


@pytest.mark.parametrize(
    "name", ["model", "labels", "face", "augment", "optimizer", "schedule", "epochs", "seed", "data"]
)
def test_missing_hyper_parameters_are_named(ckpt, tmp_path, name):
    refused(changed(ckpt, tmp_path / "x.ckpt", lambda c: c["hyper_parameters"].pop(name)), f"({name} is missing)")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (("identities", {}), "identities.train_rows is missing"),
        (("identities", [1]), "identities.train_rows is missing"),
        (("identities", "val_rows", torch.zeros(3)), "identities.val_rows is torch.float32 (3,), not hashes"),
        (("identities", "val_rows", torch.zeros(3, 4, dtype=torch.uint8)), "identities.val_rows is torch.uint8 (3, 4)"),
        # 80 TB of hashes in a few bytes
        (("identities", "train_faces", torch.zeros(1, dtype=torch.int64).expand(10**13)), "train_faces is missing, or"),
        (("state_dict", [1]), "state_dict is no mapping of names to weights"),
        (("state_dict", "net.network.0.weight", 1.0), "network.0.weight is no plain tensor"),
        (("state_dict", "net.network.0.weight", torch.zeros(1).expand(32, 3, 3, 3)), "network.0.weight is no plain"),
        (("state_dict", "net.network.0.weight", torch.zeros(32, 3, 3, 3, dtype=torch.int64)), "torch.int64, not "),
        (("state_dict", "net.network.0.weight", torch.zeros(32, 3, 3, 3) * 1j), "torch.complex64, not torch.float32"),
        (("state_dict", "net.network.1.num_batches_tracked", torch.tensor(3, dtype=torch.int8)), "torch.int8, not "),
        (("state_dict", "net.network.1.num_batches_tracked", torch.tensor(3j)), "complex64, not torch.int64"),
        (("state_dict", "net.network.0.weight", torch.zeros(2, 3, 3, 3)), "size mismatch for network.0.weight"),
    ],
)  # fmt: skip
def test_identities_and_weights_are_checked(ckpt, tmp_path, keys, message):
    refused(changed(ckpt, tmp_path / "x.ckpt", put(*keys)), message)


def test_any_flipped_byte_of_what_is_stored_is_noticed(ckpt, tmp_path):
    whole = ckpt.read_bytes()
    with zipfile.ZipFile(ckpt) as archive:
        entries = [entry for entry in archive.infolist() if entry.file_size]
    path, draw = tmp_path / "x.ckpt", random.Random(0)
    for entry in draw.sample(entries, 25):
        # its name and extra field lie between the header and the content
        name, extra = (int.from_bytes(whole[entry.header_offset + at :][:2], "little") for at in (26, 28))
        at = entry.header_offset + 30 + name + extra + draw.randrange(entry.file_size)
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1 << draw.randrange(8)]) + whole[at + 1 :])
        refused(path, f"a damaged checkpoint, the checksum of {entry.filename} is another; copy it again")
    path.write_bytes(whole)
    assert load_checkpoint(path).name == "vgg_small"


def test_an_entry_that_the_directory_calls_a_folder_is_refused(ckpt, tmp_path):
    # torch would leave its weights as the memory happens to be, and no checksum covers the directory
    whole = ckpt.read_bytes()
    start = whole.rindex(b"PK\1\2", 0, whole.rindex(b"/data/39"))
    assert whole[start + 38] == 0
    (tmp_path / "x.ckpt").write_bytes(whole[: start + 38] + b"\x10" + whole[start + 39 :])
    refused(tmp_path / "x.ckpt", "/data/39 a folder; copy it again")


def test_a_compressed_archive_is_not_unpacked(ckpt, tmp_path):
    with zipfile.ZipFile(ckpt) as old, zipfile.ZipFile(tmp_path / "x.ckpt", "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    refused(tmp_path / "x.ckpt", "its archive is compressed")


def test_weights_of_any_memory_format_are_read(ckpt, tmp_path):
    def change(content):
        weights = content["state_dict"]["net.network.0.weight"]
        content["state_dict"]["net.network.0.weight"] = weights.to(memory_format=torch.channels_last)

    first, second = load_checkpoint(ckpt), load_checkpoint(changed(ckpt, tmp_path / "x.ckpt", change))
    assert torch.equal(first.net.network[0].weight, second.net.network[0].weight)


@pytest.mark.parametrize("target", ["marks_itself.Net", "fer.system.files.claiming", "os.system", "torch.hub.load"])
def test_a_target_that_is_not_trusted_is_never_imported(ckpt, tmp_path, monkeypatch, target):
    mark = tmp_path / "it ran"
    (tmp_path / "marks_itself.py").write_text(f"import pathlib\npathlib.Path({str(mark)!r}).touch()\nNet = None\n")
    monkeypatch.syspath_prepend(tmp_path)
    package = target.split(".")[0]
    for model in ({"_target_": target}, {"_target_": "torch.nn.ModuleList", "modules": [{"_target_": target}]}):
        foreign = changed(ckpt, tmp_path / "x.ckpt", put("hyper_parameters", "model", model))
        known = f"{target} is no network of {package}"
        other = f"code of another package, which is not run unless you trust it: give trust=[{package}]"
        refused(foreign, known if package in ("fer", "torch") else other)
    assert not mark.exists() and "marks_itself" not in sys.modules


def test_an_augmentation_is_never_imported_to_use_a_network(ckpt, tmp_path, monkeypatch, run):
    mark = tmp_path / "it ran"
    (tmp_path / "marks_an_augmentation.py").write_text(
        f"import pathlib\nfrom torch import nn\npathlib.Path({str(mark)!r}).touch()\n"
        "class Mine(nn.Module):\n    def forward(self, faces):\n        return faces\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    mine = {"_target_": "marks_an_augmentation.Mine"}
    faces = torch.randint(0, 256, (4, 1, 20, 20), dtype=torch.uint8)
    for augment, crop in (mine, 20), (mine | {"crop": 16}, 16), ({"transforms": [mine], "crop": None, **mine}, 20):
        path = changed(ckpt, tmp_path / "x.ckpt", put("hyper_parameters", "augment", augment))
        read = load_checkpoint(path, trust=("marks_an_augmentation",))
        assert read.crop == crop
        margin = (20 - crop) // 2
        cut = faces[..., margin : margin + crop, margin : margin + crop]
        assert torch.equal(read(faces), read.net(cut / 255))
    common = [f"ckpt={path}", "trust=[marks_an_augmentation]"]
    Image.new("L", (20, 20)).save(tmp_path / "face.png")
    run("evaluate.py", *common, "ten_crop=false", "device=cpu", f"out={tmp_path}/report", cwd=tmp_path)
    predict = [f"source={tmp_path}/face.png", "faces=whole", "device=cpu", f"out={tmp_path}/predictions"]
    run("predict.py", *common, *predict, cwd=tmp_path)
    run("export.py", *common, "format=safetensors", f"out={tmp_path}/x.safetensors", cwd=tmp_path)
    assert load_checkpoint(tmp_path / "x.safetensors").crop == 20
    assert not mark.exists() and "marks_an_augmentation" not in sys.modules
    # as training does, where the user names it
    locate(mine["_target_"])
    assert mark.exists()


def test_a_loss_of_a_checkpoint_is_never_imported(tmp_path, monkeypatch):
    (tmp_path / "marks_itself.py").write_text(f"open({str(tmp_path / 'it ran')!r}, 'w')\nLoss = None\n")
    monkeypatch.syspath_prepend(tmp_path)
    file = write_tiny(tmp_path / "tiny.h5", {"train": 70, "val": 14})
    fit(train_config(file, **{"trainer.max_epochs": 1}), tmp_path / "run")
    foreign = changed(
        tmp_path / "run/checkpoints/last.ckpt", tmp_path / "x.ckpt",
        put("hyper_parameters", "loss", {"_target_": "marks_itself.Loss", "nested": {"_target_": "marks_itself.Loss"}}),
    )  # fmt: skip
    weights = export_weights(foreign, tmp_path / "net.safetensors")
    for path in (foreign, weights, export_onnx(foreign, tmp_path / "net.onnx")):
        assert Predictor.load(path).network.labels[0] == "Angry"
    assert load_checkpoint(weights).hyper_parameters["loss"]["_target_"] == "marks_itself.Loss"
    keys = {"ckpt": str(foreign), "split": "val", "ten_crop": False, "device": "cpu", "out": str(tmp_path / "report")}
    evaluate(keys, None)
    # who goes on with it gives a loss of his own
    with pytest.raises(InputError, match="was trained with loss._target_=marks_itself.Loss, not fer.training.losses.C"):
        assemble(train_config(file, resume=foreign), tmp_path / "y")
    assemble(train_config(file, init=foreign, **{"recipe.teachers": f"[{foreign}]"}), tmp_path / "z")
    assert not (tmp_path / "it ran").exists() and "marks_itself" not in sys.modules


def test_a_network_of_a_package_that_is_trusted_is_built(ckpt, tmp_path, monkeypatch):
    (tmp_path / "my_lab.py").write_text(
        "from torch import nn\n"
        "def net(num_classes, width=4):\n"
        "    layers = nn.Conv2d(1, width, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, num_classes)\n"
        "    return nn.Sequential(*layers)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    model = {"_target_": "my_lab.net", "width": 5}
    parameters = torch.load(ckpt, weights_only=True)["hyper_parameters"] | {"model": model}
    torch.manual_seed(0)
    own = EmotionClassifier.build(parameters)

    def change(content):
        content["hyper_parameters"] = parameters
        content["state_dict"] = {f"net.{name}": values for name, values in own.net.state_dict().items()}

    path = changed(ckpt, tmp_path / "x.ckpt", change)
    refused(path, "model._target_=my_lab.net is code of another package")
    read = load_checkpoint(path, trust=("my_lab",))
    faces = torch.randint(0, 256, (2, 1, 20, 20), dtype=torch.uint8)
    own.net.eval()
    assert read.name == "net" and read.net.head.out_features == len(read.labels)
    assert torch.equal(read(faces), own(faces))
    with pytest.raises(InputError, match="trust=my-lab: not the name of a package"):
        load_checkpoint(path, trust=("my-lab",))
