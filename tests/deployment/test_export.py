"""Export: the written file equals the checkpoint, says what it is, and is not written where it would not."""

import json
import re
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from fer.data.photos import channels_first
from fer.data.source import FaceFormat
from fer.data.storage.hdf5 import read_column
from fer.demo.server import load
from fer.deployment.export import export, export_onnx, export_torch, quantize
from fer.errors import InputError
from fer.labels import CLASSES
from fer.models.checkpoint import load_checkpoint
from fer.models.classifier import IDENTITIES
from fer.prediction.backends import open_network
from fer.training.module import ClassifierModule
from tests.conftest import ROOT, fit, train_config, write_tiny


def write_checkpoint(path, name="vgg_small", library="fer", size=20, color="grey", in_channels=1, crop=16):
    """Write a checkpoint with random weights that has seen 16 random faces."""
    torch.manual_seed(0)
    network = {"name": name, "library": library, "in_channels": in_channels, "dropout": 0.5}
    model = ClassifierModule(
        model=network | ({"weights": None} if library == "torchvision" else {}), labels=list(CLASSES),
        face={"size": size, "color": color, "margin": 0.1}, augment={"crop": crop, "flip": 0.5}, optimizer={},
        schedule={}, epochs=1, seed=0, data={"name": "nothing", "file": "nothing.h5", "drawn": True},
    )  # fmt: skip
    # batch norm with the statistics of random faces: with made-up ones every ReLU may be dead, and all faces equal
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.net(torch.rand(16, 3 if color == "rgb" else 1, crop, crop))
    known = {name: torch.empty(0, dtype=torch.int64) for name in IDENTITIES}
    parts = {"hyper_parameters": dict(model.hparams), "state_dict": model.state_dict(), "identities": known}
    torch.save(parts, path)
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A trained checkpoint beside its prepared file, which the tests do not change."""
    folder = tmp_path_factory.mktemp("export")
    file = write_tiny(folder / "tiny.h5", {"train": 150, "val": 40, "test": 40})
    fit(train_config(file, **{"trainer.max_epochs": 12}), folder / "run")
    return folder / "run/checkpoints/best.ckpt", file


@pytest.fixture(scope="module")
def plain(trained):
    """The trained checkpoint as ONNX in float32."""
    return export_onnx(trained[0], trained[1].parent / "deep/model.onnx")


def random_faces(n, size=20, color="grey"):
    shape = FaceFormat(size, color).shape
    return np.random.default_rng(n).integers(0, 256, (n, *shape), np.uint8)


def by_torch(ckpt, faces):
    with torch.inference_mode():
        logits = load_checkpoint(ckpt)(torch.from_numpy(channels_first(faces)))
    return [logits.softmax(1).numpy(), logits.numpy()]


def by_onnxruntime(path, faces):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["probabilities", "logits"], {"faces": channels_first(faces)})


def by_torch_export(path, faces):
    return [values.numpy() for values in torch.export.load(path).module()(torch.from_numpy(channels_first(faces)))]


def assert_equal(ckpt, run, path, size=20, color="grey"):
    for n in (1, 2, 33):
        faces = random_faces(n, size, color)
        wanted, found = by_torch(ckpt, faces), run(path, faces)
        assert found[0].shape == (n, 7) and found[0].dtype == np.float32
        # a dead network, the same for every face, would be equal whatever became of its input
        assert len(np.unique(wanted[1].round(3), axis=0)) == n
        np.testing.assert_allclose(found[0], wanted[0], rtol=0, atol=1e-4)
        np.testing.assert_allclose(found[1], wanted[1], rtol=1e-4, atol=1e-4)


def test_onnx_equals_the_checkpoint_at_any_batch(trained, plain):
    onnx.checker.check_model(str(plain), full_check=True)
    assert_equal(trained[0], by_onnxruntime, plain)
    faces = read_column(trained[1], "val", "image")
    np.testing.assert_allclose(by_onnxruntime(plain, faces)[0], by_torch(trained[0], faces)[0], rtol=0, atol=1e-4)
    assert [path.name for path in plain.parent.iterdir()] == ["model.onnx"]


def test_torch_export_equals_the_checkpoint_at_any_batch(trained, tmp_path):
    out = export_torch(trained[0], tmp_path / "deep/model.pt2")
    assert_equal(trained[0], by_torch_export, out)
    assert [path.name for path in out.parent.iterdir()] == ["model.pt2"]


NETWORKS = [
    ("vgg_small", "fer", 20, "rgb", 3, 16),
    pytest.param("vgg_small", "fer", 21, "grey", 3, 16, marks=pytest.mark.slow),
    pytest.param("resnet18", "fer", 20, "grey", 1, 16, marks=pytest.mark.slow),
    pytest.param("mobilenet_v3_small", "torchvision", 40, "rgb", 3, 36, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("name", "library", "size", "color", "in_channels", "crop"), NETWORKS)
def test_networks_of_both_libraries_in_grey_and_rgb(tmp_path, name, library, size, color, in_channels, crop):
    ckpt = write_checkpoint(tmp_path / "net.ckpt", name, library, size, color, in_channels, crop)
    assert_equal(ckpt, by_onnxruntime, export_onnx(ckpt, tmp_path / "net.onnx"), size, color)
    assert_equal(ckpt, by_torch_export, export_torch(ckpt, tmp_path / "net.pt2"), size, color)


def test_the_file_says_what_it_is(tmp_path):
    ckpt = write_checkpoint(tmp_path / "net.ckpt", color="rgb", in_channels=3)
    out = export_onnx(ckpt, tmp_path / "net.onnx")
    model = onnx.load(out)
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert about == {
        "project": "fer-lightning", "name": "vgg_small", "data": "nothing", "drawn": "true",
        "labels": '["Angry", "Disgust", "Fear", "Happy", "Sad", "Surprise", "Neutral"]',
        "face": '{"size": 20, "color": "rgb", "margin": 0.1}',
    }  # fmt: skip
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [18]
    # the page to try a network says so
    assert open_network(out).drawn and "trained on drawn faces" in load(str(out), "cpu", faces="whole")[2]
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    assert [(i.name, i.type, i.shape) for i in session.get_inputs()] == [
        ("faces", "tensor(uint8)", ["batch", 3, 20, 20])
    ]
    assert [(o.name, o.type, o.shape[1:]) for o in session.get_outputs()] == [
        ("probabilities", "tensor(float)", [7]), ("logits", "tensor(float)", [7]),
    ]  # fmt: skip
    # the exporter notes source files and lines of the machine that it runs on
    assert str(ROOT).encode() not in out.read_bytes() and b".py" not in out.read_bytes()
    extra = {"metadata.json": ""}
    torch.export.load(export_torch(ckpt, tmp_path / "net.pt2"), extra_files=extra)
    assert json.loads(extra["metadata.json"]) == about


@pytest.mark.parametrize(("write", "name"), [(export_onnx, "net.onnx"), (export_torch, "net.pt2")])
def test_a_file_that_differs_from_the_checkpoint_is_not_kept(tmp_path, write, name):
    ckpt = write_checkpoint(tmp_path / "net.ckpt")
    content = torch.load(ckpt, weights_only=True)
    # sums beyond float32 give not a number, which is never equal, so the comparison cannot pass
    content["state_dict"]["net.network.19.weight"][:] = 3e38
    torch.save(content, ckpt)
    with pytest.raises(InputError, match=f"{name}.*: probabilities of 1 faces differ from the checkpoint's by more"):
        write(ckpt, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["net.ckpt"]


def test_int8_keeps_the_accuracy_and_sees_training_faces_alone(trained, plain, tmp_path):
    file = trained[1]
    accuracy = quantize(plain, tmp_path / "int8.onnx", file, rows=100)
    labels, faces = read_column(file, "val", "label"), read_column(file, "val", "image")
    for key, path in (("before", plain), ("after", tmp_path / "int8.onnx")):
        assert accuracy[key] == (by_onnxruntime(path, faces)[0].argmax(1) == labels).mean()
    assert accuracy["n"] == 40 and accuracy["before"] > 0.9 and accuracy["after"] >= accuracy["before"] - 0.05
    assert (tmp_path / "int8.onnx").stat().st_size < 0.35 * plain.stat().st_size
    about = {entry.key: entry.value for entry in onnx.load(tmp_path / "int8.onnx").metadata_props}
    assert about.pop("calibration") == "100 train faces of tiny.h5"
    assert about == {entry.key: entry.value for entry in onnx.load(plain).metadata_props}
    # the same training faces beside other val and test faces give the same file
    (tmp_path / "other").mkdir()
    other = write_tiny(tmp_path / "other/tiny.h5", {"train": 150, "val": 21, "test": 7})
    assert (read_column(other, "train", "image") == read_column(file, "train", "image")).all()
    quantize(plain, tmp_path / "again.onnx", other, rows=100)
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "int8.onnx").read_bytes()


def test_int8_refuses_other_classes_faces_and_files(trained, plain, tmp_path):
    out = tmp_path / "int8.onnx"
    rows = {"train": 20, "val": 5}
    with pytest.raises(InputError, match="Cat"):
        quantize(plain, out, write_tiny(tmp_path / "cats.h5", rows, class_names=("Cat", "Dog")))
    with pytest.raises(InputError, match="faces of size 20 grey, .* size 24 grey: .* data.size=20 data.color=grey"):
        quantize(plain, out, write_tiny(tmp_path / "large.h5", rows, FaceFormat(size=24)))
    with pytest.raises(InputError, match="has 0 in its train split"):
        quantize(plain, out, write_tiny(tmp_path / "val.h5", {"val": 5}))
    with pytest.raises(InputError, match="calibration=0 faces"):
        quantize(plain, out, trained[1], rows=0)
    with pytest.raises(InputError, match="has no val split"):
        quantize(plain, out, write_tiny(tmp_path / "train.h5", {"train": 20}))
    foreign = onnx.load(plain)
    del foreign.metadata_props[:]
    onnx.save(foreign, tmp_path / "foreign.onnx")
    with pytest.raises(InputError, match=r"foreign.onnx: not a .onnx file that export.py of .*\(no project\)"):
        quantize(tmp_path / "foreign.onnx", out, trained[1])
    assert not out.exists()


@pytest.mark.parametrize("out", ["model.txt", "folder.onnx"])
def test_the_name_must_be_that_of_such_a_file(tmp_path, out):
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(InputError, match=f"{out}: not the name of a .onnx file"):
        export_onnx(write_checkpoint(tmp_path / "net.ckpt"), tmp_path / out)


@pytest.mark.slow
def test_the_command(trained, tmp_path, run):
    ckpt, file = trained
    done = run("export.py", f"ckpt={ckpt}", f"out={tmp_path}/a.onnx", cwd=tmp_path)
    assert done.stdout.startswith(f"wrote {tmp_path}/a.onnx (0.9") and done.stdout.count("\n") == 1 and not done.stderr
    done = run("export.py", f"ckpt={ckpt}", "format=onnx_int8", f"out={tmp_path}/b.onnx", cwd=tmp_path)
    assert f"on 40 val faces of {file}" in done.stdout and "% in int8" in done.stdout and not done.stderr
    done = run("export.py", f"ckpt={ckpt}", "format=pt2", cwd=tmp_path)
    assert ckpt.with_suffix(".pt2").is_file() and not done.stderr
    ckpt.with_suffix(".pt2").unlink()
    assert_equal(ckpt, by_onnxruntime, tmp_path / "a.onnx")


@pytest.mark.parametrize(
    ("changes", "data", "message"),
    [
        ({"format": "tflite"}, None, "format=tflite: not one of onnx, onnx_int8, pt2, safetensors"),
        ({}, {"file": "no.h5"}, "data= has no effect with format=onnx: it calibrates format=onnx_int8 and temp"),
        (
            {"format": "onnx_int8"},
            {"file": "no.h5", "name": "fer2013", "raw": None},
            "no.h5: no such file; make it with `fer prepare",
        ),
        (
            {"format": "onnx_int8"},
            None,
            "nothing.h5: no such file; make it with `fer prepare data=nothing",
        ),
        ({"temperature": 2}, None, "temperature=2: only val or a number of 0.01 to 100, and only with format=saf"),
        ({"temperature": 0, "format": "safetensors"}, None, "temperature=0: only val or a number of 0.01 to 100"),
        (
            {"temperature": 1e50, "format": "safetensors"},
            None,
            "temperature=1e+50: only val or a number of 0.01 to 100",
        ),
        (
            {"temperature": 1e-9, "format": "safetensors"},
            None,
            "temperature=1e-09: only val or a number of 0.01 to 100",
        ),
        (
            {"temperature": "test", "format": "safetensors"},
            None,
            "temperature=test: only val or a number of 0.01 to 100",
        ),
        ({"temperature": "val", "format": "safetensors"}, None, "nothing.h5: no such file; make it with `fer prepare"),
        ({"ckpt": "vgg19"}, None, "vgg19: not the name of a shipped network"),
        ({"ckpt": "none.ckpt"}, None, "none.ckpt: no such file"),
    ],
)
def test_mistakes(tmp_path, changes, data, message):
    ckpt = str(write_checkpoint(tmp_path / "net.ckpt"))
    keys = {"ckpt": ckpt, "format": "onnx", "out": None, "temperature": None, "calibration": 512} | changes
    with pytest.raises(InputError, match=f"^{re.escape(message)}"):
        export(keys, data)
    assert [path.name for path in tmp_path.iterdir()] == ["net.ckpt"]


@pytest.mark.slow
def test_a_place_that_cannot_be_written_is_one_line(tmp_path):
    # nobody, root neither, makes files in /proc
    ckpt = write_checkpoint(tmp_path / "net.ckpt")
    with pytest.raises(InputError, match=r"^/proc/net\.pt2: not written, its folder takes no files: choose another"):
        export_torch(ckpt, "/proc/net.pt2")


def test_mistakes_give_one_line(tmp_path, run, monkeypatch):
    error = run("export.py", cwd=tmp_path, code=2).stderr
    assert error == "error: ckpt is not set: give ckpt=runs/NAME/DATE/checkpoints/best.ckpt\n"
    ckpt = write_checkpoint(tmp_path / "net.ckpt")
    # Python's way to say that a module is not there
    monkeypatch.setitem(sys.modules, "onnx", None)
    error = run("export.py", f"ckpt={ckpt}", cwd=tmp_path, code=2).stderr
    assert error == "error: onnx is not installed: pip install '.[export]' in the checkout\n"
