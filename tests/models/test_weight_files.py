"""Weight files: the same network in half the bytes, by path or by name, and nothing that is not ours."""

import json
import pickle
import re
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import fer.models.pretrained
from fer import Predictor
from fer.data.storage.hdf5 import read_column
from fer.deployment.export import export, export_onnx, export_weights
from fer.errors import InputError
from fer.evaluation.calibration import fit_temperature
from fer.evaluation.run import evaluate
from fer.models.checkpoint import is_among, load_checkpoint
from fer.prediction.backends import open_network
from fer.prediction.gradcam import Explainer
from fer.training.run import assemble
from tests.conftest import ROOT, fit, train_config, write_tiny
from tests.evaluation.test_run import move


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A trained checkpoint, its weight file and its prepared file, which the tests do not change."""
    folder = tmp_path_factory.mktemp("weights")
    file = write_tiny(folder / "tiny.h5", {"train": 150, "val": 40, "test": 41})
    fit(train_config(file, **{"trainer.max_epochs": 3}), folder / "run")
    ckpt = folder / "run/checkpoints/best.ckpt"
    return ckpt, export_weights(ckpt, folder / "net.safetensors"), file


@pytest.fixture
def shipped(made, tmp_path, monkeypatch):
    """The weight file as if it came with the package under the name small_net."""
    (tmp_path / "shipped").mkdir()
    (tmp_path / "shipped/small_net.safetensors").symlink_to(made[1])
    monkeypatch.setattr(fer.models.pretrained, "FOLDER", tmp_path / "shipped")
    return "small_net"


def keys(ckpt, out, **changes):
    return {"ckpt": str(ckpt), "split": "test", "ten_crop": True, "device": "cpu", "out": str(out)} | changes


def probabilities(ckpt, file, split="val"):
    return open_network(ckpt, "cpu")(read_column(file, split, "image"))


def test_probabilities_are_the_checkpoints_in_less_than_half_the_bytes(made):
    ckpt, weights, file = made
    np.testing.assert_allclose(probabilities(weights, file), probabilities(ckpt, file), rtol=0, atol=2e-3)
    # 242,439 parameters and the statistics of 4 norms, 2 bytes each; 340 hashes of 5 bytes
    assert 490_000 < weights.stat().st_size < 500_000 < ckpt.stat().st_size / 2


def test_the_file_brings_all_that_its_use_needs(made):
    ckpt, weights, file = made
    with safe_open(weights, "pt") as opened:
        meta, kinds = opened.metadata(), {name: opened.get_tensor(name).dtype for name in opened.keys()}
    assert meta["project"] == "fer-lightning" and meta["format"] == "1" and "temperature" not in meta
    assert json.loads(meta["labels"])[:2] == ["Angry", "Disgust"] and json.loads(meta["face"])["size"] == 20
    parameters = json.loads(meta["hyper_parameters"])
    assert parameters["model"]["name"] == "vgg_small" and parameters["augment"]["crop"] == 16
    assert (parameters["epochs"], parameters["seed"]) == (3, 0)
    # nothing of the disk it was made on
    assert parameters["data"] == {"name": "fer2013", "file": "tiny.h5", "drawn": False}
    assert str(file.parent) not in str(meta)
    integers = {name for name in kinds if name.endswith("num_batches_tracked")}
    hashes = {f"identities.{name}" for name in ("train_rows", "train_faces", "val_rows")}
    assert {name for name, kind in kinds.items() if kind != torch.float16} == integers | hashes
    model = load_checkpoint(weights)
    assert not model.net.training and {values.dtype for values in model.net.parameters()} == {torch.float32}


def test_what_float16_has_no_range_for_stays_float32(made, tmp_path):
    content = torch.load(made[0], weights_only=True)
    name = next(name for name in content["state_dict"] if name.endswith("running_var"))
    content["state_dict"][name][0] = 70_000.0
    torch.save(content, tmp_path / "wide.ckpt")
    tensors = load_file(export_weights(tmp_path / "wide.ckpt", tmp_path / "wide.safetensors"))
    wide = [name for name, values in tensors.items() if values.dtype == torch.float32]
    assert wide == [name.removeprefix("net.")] and tensors[wide[0]][0] == 70_000.0


def test_a_temperature_is_part_of_the_weights(made, tmp_path):
    ckpt, weights, file = made
    warm = export_weights(ckpt, tmp_path / "warm.safetensors", temperature=2.0)
    # the root of probabilities is what logits divided by two give
    expected = probabilities(ckpt, file) ** 0.5
    expected /= expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(probabilities(warm, file), expected, rtol=0, atol=2e-3)
    shown = Explainer.load(warm, device="cpu").heat(read_column(file, "val", "image"))[1]
    np.testing.assert_allclose(shown, expected, rtol=0, atol=2e-3)
    with safe_open(warm, "pt") as opened:
        assert opened.metadata()["temperature"] == "2.0"


@pytest.mark.slow
def test_an_onnx_file_takes_the_temperature_along(made, tmp_path):
    warm = export_weights(made[0], tmp_path / "warm.safetensors", temperature=2.0)
    exported = export_onnx(warm, tmp_path / "warm.onnx")
    np.testing.assert_allclose(probabilities(exported, made[2]), probabilities(warm, made[2]), rtol=0, atol=1e-5)


def test_the_temperature_of_val_is_the_best_for_val(made, tmp_path, capsys):
    ckpt, _, file = made
    given = {"ckpt": str(ckpt), "format": "safetensors", "out": str(tmp_path / "a.safetensors"), "calibration": 512}
    export(given | {"temperature": "val"}, None)
    labels = read_column(file, "val", "label")
    best = fit_temperature(probabilities(ckpt, file), labels)
    assert f"temperature {best:.4f}, fitted to 40 val faces of {file}" in capsys.readouterr().out
    # of scaled probabilities the best temperature is 1
    assert fit_temperature(probabilities(tmp_path / "a.safetensors", file), labels) == pytest.approx(1, abs=0.01)
    with pytest.raises(InputError, match="net.safetensors: is a weight file already; give the .ckpt"):
        export(given | {"ckpt": str(made[1]), "temperature": None}, None)


def test_evaluation_of_a_weight_file_says_what_that_of_its_checkpoint_says(made, tmp_path):
    ckpt, weights, file = made
    data = {"name": "fer2013", "file": str(file)}
    assert evaluate(keys(weights, tmp_path / "a"), data) == evaluate(keys(ckpt, tmp_path / "b"), data)
    reports = [json.loads((tmp_path / name / "report.json").read_text()) for name in "ab"]
    assert reports[0]["notes"] == reports[1]["notes"] and reports[0]["trained_on"] == "fer2013"
    evaluate(keys(weights, tmp_path / "c", split="val"), data)
    assert "40 of these 40 rows" in json.loads((tmp_path / "c/report.json").read_text())["notes"][0]


def test_rows_that_a_weight_file_was_trained_on_are_refused(made, tmp_path):
    move(write_tiny(tmp_path / "leak.h5", {"train": 30, "test": 20}), tmp_path / "moved.h5")
    with pytest.raises(InputError, match=r"20 of its 20 rows are rows that .*net.safetensors was trained on \(the fi"):
        evaluate(keys(made[1], tmp_path / "out"), {"name": "other", "file": str(tmp_path / "moved.h5")})


def test_hashes_are_known_by_their_low_40_bits():
    whole = np.array([5, -1, 2**40 + 7, -(2**62)])
    known = torch.tensor([[5, 0, 0, 0, 0], [255] * 5, [7, 0, 0, 0, 0]], dtype=torch.uint8)
    assert is_among(whole, known).tolist() == [True, True, True, False]
    assert is_among(whole, torch.tensor([5, 7])).tolist() == [True, False, False, False]
    assert is_among(whole, known[:0]).tolist() == [False] * 4


def test_a_name_goes_wherever_a_path_goes(made, shipped, tmp_path, monkeypatch):
    ckpt, weights, file = made
    assert fer.models.pretrained.names() == ("small_net",)
    found = probabilities(shipped, file)
    np.testing.assert_array_equal(found, probabilities(weights, file))
    face = read_column(file, "test", "image")[0]
    assert Predictor.load(shipped, "whole", device="cpu")(face)[0].label in load_checkpoint(shipped).labels
    monkeypatch.chdir(tmp_path)
    data = {"name": "fer2013", "file": str(file)}
    evaluate(keys(shipped, "") | {"out": None}, data)
    report = json.loads((tmp_path / "runs/small_net/evaluate/small_net-fer2013-test/report.json").read_text())
    assert report["checkpoint"] == "small_net"
    with pytest.raises(InputError, match=r"^smal_net: not the name of a shipped network \(there is small_net\), and a"):
        load_checkpoint("smal_net")


def test_names_need_no_torch(tmp_path):
    program = "import sys, fer.models.pretrained; fer.models.pretrained.names(); "
    program += "assert not {'torch', 'safetensors'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0


def test_fine_tuning_a_shipped_network_to_other_classes(made, shipped, tmp_path):
    pets = write_tiny(tmp_path / "pets.h5", {"train": 60, "val": 20, "test": 20}, class_names=("cat", "dog"), seed=7)
    config = train_config(pets, init=shipped, batch_size=10, **{"trainer.max_epochs": 6})
    _, model, _, _ = assemble(config, tmp_path / "x")
    own, theirs = model.net.state_dict(), load_checkpoint(made[1]).net.state_dict()
    *body, weight, bias = own
    assert all(torch.equal(own[name], theirs[name]) for name in body)
    assert own[weight].shape[0] == own[bias].shape[0] == 2 and theirs[weight].shape[0] == 7
    fit(config, tmp_path / "run")
    best = tmp_path / "run/checkpoints/best.ckpt"
    assert load_checkpoint(best).labels == ["cat", "dog"]
    assert evaluate(keys(best, tmp_path / "report"), None) > 0.8


def test_init_and_resume_say_what_fits(made, shipped, tmp_path):
    with pytest.raises(InputError, match="vgg_small, .*=resnet18: give model=vgg_small model.in_channels=3 model.dr"):
        assemble(train_config(made[2], model="resnet18", init=made[1]), tmp_path / "x")
    for given in (made[1], shipped):
        with pytest.raises(InputError, match=f"^resume={given}: no run to go on with; start .* with init=$"):
            assemble(train_config(made[2], resume=given), tmp_path / "x")


class Evil:
    def __reduce__(self):
        return print, ("executed",)


def spoil(weights, path, kind):
    """Write a file that looks more or less like a weight file."""
    raw = weights.read_bytes()
    with safe_open(weights, "pt") as opened:
        meta = dict(opened.metadata())
    tensors, parameters = load_file(weights), json.loads(meta["hyper_parameters"])
    if kind in ("truncated", "pickle", "long header"):
        header = struct.pack("<Q", 2**62) + raw[8:]
        content = {"truncated": raw[:-100], "pickle": pickle.dumps(Evil()), "long header": header}
        return path.write_bytes(content[kind])
    if kind == "no metadata":
        return save_file(tensors, path)
    if kind == "foreign":
        return save_file(tensors, path, {"format": "pt"})
    if kind == "other format":
        meta["format"] = "2"
    elif kind == "missing tensor":
        del tensors["network.0.weight"]
    elif kind == "other shape":
        tensors["network.0.weight"] = torch.zeros(2, 2)
    elif kind == "no identities":
        del tensors["identities.train_rows"]
    elif kind == "other identities":
        tensors["identities.train_rows"] = torch.zeros(3)
    elif kind == "no json":
        meta["hyper_parameters"] = "{"
    elif kind == "deep json":
        meta["hyper_parameters"] = "[" * 100_000
    elif kind == "a list":
        meta["hyper_parameters"] = "[1]"
    else:
        group, value = {
            "unknown key": ("evil", 1), "unknown network": ("model", parameters["model"] | {"name": "x"}),
            "numbers as labels": ("labels", [1] * 7), "no data": ("data", {}), "no crop": ("augment", {"flip": 0.5}),
        }[kind]  # fmt: skip
        meta["hyper_parameters"] = json.dumps(parameters | {group: value})
    save_file(tensors, path, meta)


_FOREIGN = "not a weight file that export.py wrote, in its format 1"
_UNREADABLE = "not a readable .safetensors file"


def _unfit(reason):
    return f"a weight file that does not fit this program ({reason}"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("truncated", _UNREADABLE),
        ("pickle", _UNREADABLE),
        ("long header", _UNREADABLE),
        ("no metadata", _FOREIGN),
        ("foreign", _FOREIGN),
        ("other format", _FOREIGN),
        ("missing tensor", _unfit("Error(s) in loading state_dict for FaceNetwork: Missing key")),
        ("other shape", _unfit("Error(s) in loading state_dict for FaceNetwork: size mismatch for network.0.weight")),
        ("no identities", _unfit("'identities.train_rows')")),
        ("other identities", _unfit("identities are not the low bytes of hashes)")),
        ("no json", _unfit("Expecting property name")),
        ("deep json", _unfit("maximum recursion depth")),
        ("a list", _unfit("its hyper-parameters are no mapping)")),
        ("unknown key", _unfit("unknown hyper-parameters evil)")),
        ("unknown network", "unknown model name='x'; valid: "),
        ("numbers as labels", _unfit("labels=[1, 1, 1, 1, 1, 1, 1] is not a list of texts)")),
        ("no data", _unfit("data.name is missing)")),
        ("no crop", _unfit("augment.crop is missing)")),
    ],
)
def test_what_is_not_a_whole_weight_file_of_ours_is_refused(made, tmp_path, capsys, kind, message):
    path = tmp_path / "x.safetensors"
    spoil(made[1], path, kind)
    with pytest.raises(InputError, match=f"^{re.escape(f'{path}: {message}')}") as caught:
        load_checkpoint(path)
    assert "\n" not in str(caught.value) and "executed" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("network.0.weight", float("nan"), "NaN or infinite"),
        ("network.19.bias", float("inf"), "NaN or infinite"),
        ("network.1.running_mean", -float("inf"), "NaN or infinite"),
        ("network.1.running_var", -1.0, "NaN, infinite or below 0"),
    ],
)
def test_weights_that_mean_nothing_are_refused_by_all_that_load_them(made, tmp_path, name, value, what):
    ckpt, weights, file = made
    content = torch.load(ckpt, weights_only=True)
    content["state_dict"][f"net.{name}"].flatten()[0] = value
    torch.save(content, tmp_path / "bad.ckpt")
    with safe_open(weights, "pt") as opened:
        meta = opened.metadata()
    tensors = load_file(weights)
    tensors[name].flatten()[0] = value
    save_file(tensors, tmp_path / "bad.safetensors", meta)
    config = train_config(file, init=tmp_path / "bad.ckpt")
    teachers = train_config(file) | {"recipe": config["recipe"] | {"teachers": [str(tmp_path / "bad.ckpt")]}}
    resume = train_config(file, resume=tmp_path / "bad.ckpt")
    for path, use in (
        ("bad.ckpt", lambda path: Predictor.load(path, "whole", device="cpu")),
        ("bad.safetensors", lambda path: Predictor.load(path, "whole", device="cpu")),
        ("bad.ckpt", lambda path: Explainer.load(path, device="cpu")),
        ("bad.ckpt", lambda path: evaluate(keys(path, tmp_path / "report"), None)),
        ("bad.ckpt", lambda path: export_onnx(path, tmp_path / "x.onnx")),
        ("bad.ckpt", lambda path: export_weights(path, tmp_path / "x.safetensors")),
        ("bad.ckpt", lambda path: assemble(config, tmp_path / "run")),
        ("bad.ckpt", lambda path: assemble(teachers, tmp_path / "run")),
        ("bad.ckpt", lambda path: assemble(resume, tmp_path / "run")),
    ):
        with pytest.raises(InputError) as caught:
            use(tmp_path / path)
        begin = f"{tmp_path / path}: 1 of the "
        assert str(caught.value).startswith(begin) and f"values of {name} are {what}, so" in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} <= {"bad.ckpt", "bad.safetensors", "run"}


@pytest.mark.slow
def test_the_commands(made, tmp_path, run):
    ckpt, weights, file = made
    done = run("export.py", f"ckpt={ckpt}", "format=safetensors", "temperature=val", "out=a.safetensors", cwd=tmp_path)
    assert done.stdout.startswith("temperature ") and "wrote a.safetensors (0.4" in done.stdout
    given = ["data=fer2013", f"data.file={file}", "data.size=20", "split=test", "device=cpu"]
    done = run("evaluate.py", "ckpt=a.safetensors", *given, cwd=tmp_path)
    assert "runs/a/evaluate/a-fer2013-test/report.json" in done.stdout
    done = run("evaluate.py", f"ckpt=[a.safetensors,{ckpt}]", "scales=[16,20]", "out=both", *given, cwd=tmp_path)
    assert f"checkpoint a.safetensors, {ckpt}" in done.stdout and "ten-crop of 16, 20 pixels *" in done.stdout
    done = run("evaluate.py", "ckpt=nothing", *given, cwd=tmp_path, code=2)
    assert done.stderr.startswith("error: nothing: not the name of a shipped network") and done.stderr.count("\n") == 1
