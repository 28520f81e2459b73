"""Darknet nets as ONNX: the same numbers under onnxruntime, and all that another program needs in the file."""

import json

import numpy as np
import onnxruntime
import pytest
import torch

from fer import Predictor
from fer.darknet.design.architectures import recipe
from fer.darknet.design.fit import fit
from fer.darknet.torch_engine.export import export
from fer.errors import InputError
from fer.prediction.backends import open_network
from tests.darknet.test_network import narrow, trained_like
from tests.darknet.test_torch_scores import ALEXEYABS, write

KEYS = {"format": "onnx", "out": None, "temperature": None}
OPTIONS = {"cfg": None, "names": None}


def test_a_detector_with_its_boxes_decoded(tmp_path, capsys):
    network = trained_like(narrow(fit(recipe("v4_tiny"), {"size": 64}, 2, 1000)))
    net = write(tmp_path, network, ("Happiness", "dog"), ALEXEYABS)
    path = export(KEYS | {"ckpt": str(net.weights)}, None, OPTIONS)
    assert path == tmp_path / "net.onnx" and f"wrote {path}" in capsys.readouterr().out
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    meta = session.get_modelmeta().custom_metadata_map
    assert json.loads(meta["labels"]) == ["Happy", "dog"] and json.loads(meta["size"]) == [64, 64]
    assert (meta["task"], meta["letterbox"], meta["drawn"]) == ("detector", "false", "false")
    photos = np.random.default_rng(0).integers(0, 256, (5, 3, 64, 64), np.uint8)
    boxes, objectness, probabilities = session.run(None, {"photos": photos})
    wanted = network(torch.from_numpy(photos).float() / 255).numpy()
    # a cell is 32 and 16 pixels: 3 anchors in 4 and 16 cells
    assert boxes.shape == (5, 60, 4) and objectness.shape == (5, 60) and probabilities.shape == (5, 60, 2)
    found = np.concatenate([boxes, objectness[..., None], probabilities], axis=-1)
    assert found == pytest.approx(wanted, rel=1e-3, abs=1e-4)
    with pytest.raises(InputError, match="net.onnx: a detector for other programs"):
        open_network(path)


def test_a_classifier_is_a_network_like_any_other(tmp_path):
    net = write(tmp_path, trained_like(narrow(fit(recipe("classifier_small"), {"size": 32}, 3, 1000))), "abc")
    path = export(KEYS | {"ckpt": str(net.weights), "out": str(tmp_path / "x.onnx")}, None, OPTIONS)
    photos = [np.random.default_rng(n).integers(0, 256, (40, 50, 3), np.uint8) for n in range(3)]
    ours, theirs = (Predictor.load(file, faces="whole", device="cpu").batch(photos) for file in (net.weights, path))
    for (one,), (other,) in zip(ours, theirs, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-4)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    probabilities, logits = session.run(None, {"faces": np.stack(photos)[:, :32, :32].transpose(0, 3, 1, 2)})
    assert torch.from_numpy(logits).softmax(1).numpy() == pytest.approx(probabilities, abs=1e-6)
    assert np.abs(probabilities.sum(1) - 1).max() < 1e-6 and np.ptp(logits) > 0.1


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"format": "pt2"}, "format=pt2: the .weights of a Darknet net are exported with format=onnx alone"),
        ({"temperature": "val"}, "temperature=val: "),
        ({"out": "x.pt2"}, "out=x.pt2: not the name of a .onnx file"),
        ({"ckpt": "none.weights"}, "none.weights: no such file"),
    ],
)
def test_what_is_not_written(tmp_path, changed, message):
    net = write(tmp_path, trained_like(narrow(fit(recipe("classifier_small"), {"size": 32}, 3, 1000))), "abc")
    with pytest.raises(InputError, match=message) as error:
        export(KEYS | {"ckpt": str(net.weights)} | changed, None, OPTIONS)
    assert "\n" not in str(error.value)


def test_a_file_that_differs_is_not_kept(tmp_path, monkeypatch):
    net = write(tmp_path, trained_like(narrow(fit(recipe("classifier_small"), {"size": 32}, 3, 1000))), "abc")
    # no two programs round alike
    monkeypatch.setattr("fer.darknet.torch_engine.export.TOLERANCE", 0.0)
    with pytest.raises(InputError, match="net.onnx under onnxruntime: probabilities differ from torch's"):
        export(KEYS | {"ckpt": str(net.weights)}, None, OPTIONS)
    assert not list(tmp_path.glob("*.onnx*"))
