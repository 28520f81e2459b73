"""Networks from both kinds of file: the same numbers, no torch for .onnx, and one line for whatever is not ours."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from fer.data.source import FaceFormat
from fer.data.storage.hdf5 import read_column
from fer.deployment.export import export_onnx, export_weights
from fer.errors import InputError
from fer.labels import CLASSES
from fer.models.checkpoint import load_checkpoint
from fer.prediction.backends import open_network
from tests.conftest import ROOT, fit, train_config, write_tiny


@pytest.fixture(scope="module", params=["grey", "rgb"])
def files(tmp_path_factory, request):
    """A checkpoint, its exports and its prepared file."""
    folder = tmp_path_factory.mktemp("network")
    prepared = write_tiny(folder / "tiny.h5", {"train": 70, "val": 40}, FaceFormat(20, request.param, 0.25))
    fit(
        train_config(prepared, **{"trainer.max_epochs": 1, "data.color": request.param, "data.margin": 0.25}),
        folder / "run",
    )
    ckpt = folder / "run/checkpoints/best.ckpt"
    return ckpt, export_onnx(ckpt, folder / "model.onnx"), export_weights(ckpt, folder / "x.safetensors"), prepared


def test_a_checkpoint_and_its_export_name_faces_alike(files):
    *networks, prepared = files
    faces = read_column(prepared, "val", "image")
    # the centre 16 of 20 pixels, scaled to 0..1, channels first; worked here by hand
    inner = np.float32(faces[:, 2:18, 2:18]) / 255
    inner = inner[:, None] if inner.ndim == 3 else inner.transpose(0, 3, 1, 2)
    with torch.no_grad():
        expected = load_checkpoint(networks[0]).net(torch.from_numpy(inner.copy())).softmax(1).numpy()
    for file in networks:
        network = open_network(file, "cpu")
        assert network.labels == CLASSES and network.name == "vgg_small"
        assert network.face == FaceFormat(20, "grey" if faces.ndim == 3 else "rgb", 0.25)
        found = network(faces)
        assert found.shape == (40, 7) and found.dtype == np.float32
        # eleven bits of each weight are left in float16
        close = 2e-3 if file.suffix == ".safetensors" else 1e-4
        np.testing.assert_allclose(found, expected, rtol=0, atol=close)
        np.testing.assert_allclose(network(faces[3:4])[0], expected[3], rtol=0, atol=close)
        assert network.drawn is False


def test_an_export_runs_without_torch(files):
    program = f"""
import sys
import numpy as np
from fer import Predictor
faces = Predictor.load({str(files[1])!r}, faces="whole")(np.zeros((30, 30, 3), np.uint8))
assert len(faces) == 1
heavy = {{"torch", "torchvision", "pytorch_lightning", "hydra", "pandas", "h5py"}} & set(sys.modules)
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, done.stderr


class _Evil:
    def __reduce__(self):
        return open, (str(_Evil.target), "w")


@pytest.mark.parametrize(
    "name, message",
    [
        ("missing.ckpt", "no such file"),
        ("missing.onnx", "no such file"),
        ("net.weights", "Darknet weights are for predict.py"),
        ("net.pth", "path must end in .ckpt, .safetensors or .onnx"),
        ("net", "not the name of a shipped network"),
        ("missing.safetensors", "no such file"),
        ("noise.safetensors", "not a readable .safetensors"),
        ("empty.safetensors", "not a readable .safetensors"),
        ("evil.safetensors", "not a readable .safetensors"),
        ("noise.ckpt", "not a readable checkpoint"),
        ("noise.onnx", "not a readable .onnx"),
        ("empty.onnx", "not a readable .onnx"),
        ("evil.ckpt", "not a readable checkpoint"),
        ("evil.onnx", "not a readable .onnx"),
        ("foreign.onnx", "not a .onnx file that export.py"),
        ("bare.onnx", "not a .onnx file that export.py"),
    ],
)
def test_what_is_not_ours_is_refused_in_one_line(tmp_path, name, message):
    file, _Evil.target = tmp_path / name, tmp_path / "unpickled"
    if name.startswith("noise"):
        file.write_bytes(np.random.default_rng(0).bytes(2000))
    elif name.startswith("evil"):
        file.write_bytes(pickle.dumps(_Evil()))
    elif name.startswith("empty"):
        file.touch()
    elif name in ("foreign.onnx", "bare.onnx"):
        # somebody's ReLU; the second calls itself ours but has another input
        tensors = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1, 3]) for n in "xy"]
        graph = onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], ["y"])], "g", tensors[:1], tensors[1:])
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9)
        if name == "bare.onnx":
            ours = {"project": "fer-lightning", "name": "n", "labels": '["a", "b"]', "face": '{"size": 48}'}
            onnx.helper.set_model_props(model, ours)
        onnx.save(model, file)
    with pytest.raises(InputError) as caught:
        open_network(file)
    assert str(file) in str(caught.value) and message in str(caught.value) and "\n" not in str(caught.value)
    assert not _Evil.target.exists()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("labels", None, "(no labels)"),
        ("labels", '["a", "b"]', "(2 labels, outputs {'probabilities': ['tensor(float)', 2, [7]]"),
        ("labels", '["a", "a", "c", "d", "e", "f", "g"]', "is not a list of 2 to 10,000 different texts)"),
        ("labels", '"abcdefg"', "(labels='abcdefg' is not a list of texts)"),
        ("labels", "[1, 2, 3, 4, 5, 6, 7]", "(labels=[1, 2, 3, 4, 5, 6, 7] is not a list of texts)"),
        ("labels", "[" * 100_000, "recursion"),
        ("face", "[]", "(face=[] has not just the keys size, color and margin)"),
        ("face", '{"size": 10000000, "color": "grey", "margin": 0.25}', "(face.size=10000000 is not a whole number"),
        ("face", '{"size": 20, "color": "grey", "margin": NaN}', "(face.margin=nan is not a fraction of 0 to 2)"),
        ("face", '{"size": 21, "color": "grey", "margin": 0.25}', "(inputs {'faces': ['tensor(uint8)', ["),
        ("drawn", "7", "(drawn=7)"),
        ("drawn", "", "(Expecting value"),
        ("name", None, "(no name)"),
        ("project", "other", "(project='other')"),
    ],
)
def test_metadata_of_an_export_are_checked_on_opening(files, tmp_path, key, value, message):
    model, path = onnx.load(files[1]), tmp_path / "x.onnx"
    meta = {entry.key: entry.value for entry in model.metadata_props} | {key: value}
    onnx.helper.set_model_props(model, {key: value for key, value in meta.items() if value is not None})
    onnx.save(model, path)
    with pytest.raises(InputError) as caught:
        open_network(path, "cpu")
    begin = f"{path}: not a .onnx file that export.py of this project wrote ("
    assert str(caught.value).startswith(begin) and message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"fer-lightning", "a damaged .onnx file, its metadata are no text ("),
        (b"Softmax", "not a readable .onnx file"),
    ],
)
def test_texts_of_an_export_that_are_no_utf_8_are_one_line_and_print_nothing(files, tmp_path, capfd, text, message):
    content, path = Path(files[1]).read_bytes(), tmp_path / "x.onnx"
    assert text in content
    path.write_bytes(content.replace(text, text[:-1] + b"\xff"))
    with pytest.raises(InputError) as caught:
        open_network(path, "cpu")
    assert str(caught.value).startswith(f"{path}: {message}") and "\n" not in str(caught.value)
    # onnxruntime's own second try prints "EP Error", on the stdout that takes a prediction's rows
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (np.full((1, 2), np.nan), "what it gives are no probabilities: NaN, below 0 or not of sum 1; export it again"),
        (np.array([[3.0, -2.0]]), "what it gives are no probabilities"),
        (np.array([[0.5, 0.6]]), "what it gives are no probabilities"),
        (np.array([[0.2, 0.3, 0.5]]), "(2 labels, outputs {'probabilities': ['tensor(float)', 2, [3]]})"),
        (np.full((2, 2), 0.5), "its probabilities of 1 faces are float32 (2, 2), not float32 (1, 2); export it again"),
    ],
)
def test_outputs_of_an_export_are_checked_on_opening(tmp_path, outputs, message):
    # a file that says all the right things, and whose graph gives a constant
    proto, path = onnx.TensorProto, tmp_path / "x.onnx"
    value = onnx.numpy_helper.from_array(outputs.astype(np.float32), "value")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Constant", [], ["probabilities"], value=value)], "g",
        [onnx.helper.make_tensor_value_info("faces", proto.UINT8, ["batch", 1, 20, 20])],
        [onnx.helper.make_tensor_value_info("probabilities", proto.FLOAT, ["batch", 2])],
    )  # fmt: skip
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)
    onnx.helper.set_model_props(
        model,
        {"project": "fer-lightning", "labels": '["a", "b"]', "name": "n", "drawn": "false",
         "face": '{"size": 20, "color": "grey", "margin": 0}'},
    )  # fmt: skip
    onnx.save(model, path)
    with pytest.raises(InputError) as caught:
        open_network(path, "cpu")
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("device", ["cuda:7", "nonsense"])
def test_a_device_that_is_not_there_is_refused_in_one_line(files, device):
    for file in files[:2]:
        with pytest.raises(InputError, match=rf"device={device}: .*device=cpu") as caught:
            open_network(Path(file), device)
        assert "\n" not in str(caught.value)
