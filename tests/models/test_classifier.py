"""A checkpoint as a torch module: what it takes, what it refuses, and how it trains."""

import copy
import pickle

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from fer import InputError, Predictor, load_checkpoint
from fer.data.photos import fit

FACE = skimage.data.astronaut()[62:178, 166:282]


@pytest.fixture(scope="module")
def model():
    return load_checkpoint("fer2013_vgg9")


def happy(model, faces):
    return float(model(faces).softmax(1)[0, model.labels.index("Happy")])


@torch.inference_mode()
def test_what_preprocess_gives_is_named_as_the_predictor_names_it(model, tmp_path):
    (named,) = Predictor.load("fer2013_vgg9", faces="whole", device="cpu")(FACE)
    faces = model.preprocess(FACE)
    assert faces.dtype == torch.uint8 and faces.shape == (1, 1, 48, 48)
    assert model(faces).softmax(1)[0].tolist() == pytest.approx([*named.probabilities.values()], abs=1e-6)
    # of any kind, size and range it is the same face
    Image.fromarray(FACE).save(tmp_path / "face.png")
    given = [FACE / 255, tmp_path / "face.png", Image.fromarray(FACE), torch.from_numpy(FACE.copy()).permute(2, 0, 1)]
    assert all(torch.equal(model.preprocess(each), faces) for each in given)
    assert torch.equal(model.preprocess(given), faces.expand(4, -1, -1, -1))
    assert torch.equal(model.preprocess(np.stack([FACE, FACE])), faces.expand(2, -1, -1, -1))
    # what is right already stays as it is
    assert torch.equal(model.preprocess(faces), faces) and torch.equal(model.preprocess(faces / 255), faces)
    assert model.preprocess([]).shape == (0, 1, 48, 48)
    with pytest.raises(InputError, match=r"none.png: missing file"):
        model.preprocess("none.png")


@torch.inference_mode()
def test_the_faces_of_a_result_are_cut_as_the_predictor_cut_them(model):
    photo = skimage.data.astronaut()
    boxes = [(166, 62, 116, 116), (470, 400, 90, 110)]
    result = Predictor.load("fer2013_vgg9", faces=lambda _: (boxes, [1, 1]), device="cpu")(photo)
    logits = model(model.preprocess(result))
    expected = [[*face.probabilities.values()] for face in result]
    np.testing.assert_allclose(logits.softmax(1).numpy(), expected, atol=1e-6)
    # without a face there is none
    assert model.preprocess(Predictor.load("fer2013_vgg9", "haar", device="cpu")(photo * 0)).shape == (0, 1, 48, 48)


def test_colour_and_size_are_those_of_the_training(tmp_path):
    from tests.deployment.test_export import write_checkpoint

    path = write_checkpoint(tmp_path / "rgb.ckpt", size=24, color="rgb", in_channels=3)
    faces = load_checkpoint(path).preprocess([FACE, FACE[:, :, 0]])
    assert faces.shape == (2, 3, 24, 24) and (faces[1] == faces[1, :1]).all()


@torch.inference_mode()
def test_forward_refuses_what_it_was_not_made_for(model):
    stored = model.preprocess(FACE)
    assert happy(model, stored) > 0.8
    large = torch.from_numpy(fit(FACE, type(model.face)(224, "grey")))[None, None]
    # what it would say of floats: they are divided by 255 once more
    dark = model.net((stored / 255 / 255)[..., 2:46, 2:46]).softmax(1)[0]
    assert dark.argmax() != model.labels.index("Happy")
    for wrong, said in (
        (stored / 255, r"torch.float32 \(1, 1, 48, 48\)"),
        (stored.float(), "torch.float32"),
        (stored.long(), "torch.int64"),
        (large, r"torch.uint8 \(1, 1, 224, 224\)"),
        (stored[..., 2:46, 2:46], r"\(1, 1, 44, 44\)"),
        (stored.expand(-1, 3, -1, -1), r"\(1, 3, 48, 48\)"),
        (stored[0], r"torch.uint8 \(1, 48, 48\)"),
        (stored.numpy(), "got ndarray"),
    ):
        for call in (model, lambda faces: model(faces, average_ten_crop=True)):
            with pytest.raises(InputError, match=said) as caught:
                call(wrong)
            assert "model.preprocess(pictures) makes it" in str(caught.value) and "\n" not in str(caught.value)
    assert model(stored[:0]).shape == (0, 7)


def test_it_is_a_module_that_trains_and_comes_back():
    model = load_checkpoint("fer2013_vgg9")
    assert not model.training and not model.net.training
    faces = model.preprocess([FACE, FACE[:, ::-1]])
    before = model(faces)
    assert model.train() is model and model.net.training
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    losses = []
    for _ in range(5):
        loss = torch.nn.functional.cross_entropy(model(faces), torch.tensor([0, 0]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    # dropout draws, so that two passes differ
    assert not torch.equal(model(faces), model(faces))
    assert model.eval() is model and torch.equal(model(faces), model(faces))
    assert not torch.equal(model(faces), before)


def test_it_is_moved_copied_and_saved_as_modules_are(model):
    faces = model.preprocess(FACE)
    twin = copy.deepcopy(model)
    assert twin.net is not model.net and twin.labels == model.labels
    read = pickle.loads(pickle.dumps(model))
    for other in (twin, read):
        assert torch.equal(other(faces), model(faces))
    fresh = load_checkpoint("fer2013_vgg9")
    for values in fresh.parameters():
        values.data.zero_()
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(fresh(faces), model(faces))
    assert copy.deepcopy(model).to("meta").device.type == "meta" and set(model.state_dict()) == {
        f"net.{name}" for name in model.net.state_dict()
    }


def test_programs_that_take_modules_take_it(model):
    faces = model.preprocess([FACE, FACE[:, ::-1]])
    expected = model(faces)
    program = torch.export.export(model, (faces,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    for n in (1, 2, 5):
        some = faces[:1].expand(n, -1, -1, -1).contiguous()
        torch.testing.assert_close(program.module()(some), model(some))
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(faces), expected)
