"""Grad-CAM against hand-worked maps and against gradients taken another way; overlays, figures, refusals."""

import numpy as np
import pytest
import torch
from torch import nn

from fer.data.source import FaceFormat
from fer.errors import InputError
from fer.models.checkpoint import load_checkpoint
from fer.models.networks import FaceNetwork
from fer.prediction.gradcam import Explainer, convolutions, default_layer, delete, grad_cam, overlay
from tests.deployment.test_export import write_checkpoint


@pytest.fixture
def hand_made(tmp_path):
    """Two maps, x and 1 - x, averaged, with class weights (3, 1), (-1, 1) and (-1, -1); it sees 2 x 2 of 4 x 4."""
    model = load_checkpoint(write_checkpoint(tmp_path / "net.ckpt"))
    convolution, linear = nn.Conv2d(1, 2, 1), nn.Linear(2, 3)
    with torch.no_grad():
        convolution.weight[:, 0, 0, 0], convolution.bias[:] = torch.tensor([1.0, -1]), torch.tensor([0.0, 1])
        linear.weight[:], linear.bias[:] = torch.tensor([[3.0, 1], [-1, 1], [-1, -1]]), torch.tensor([0.0, 0, 9])
    layers = nn.Sequential(convolution, nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)
    model.net, model.crop = FaceNetwork(layers, "hand made", 1, 1, head="3").eval(), 2
    model.face = FaceFormat(4, "grey")
    return model


FACE = torch.full((1, 1, 4, 4), 200, dtype=torch.uint8)
FACE[0, 0, 1:3, 1:3] = torch.tensor([[0, 51], [102, 255]])  # 0, 0.2, 0.4 and 1 of 255

# by hand: the class weights times the maps, 3x + (1 - x) = 1 + 2x, -x + (1 - x) = 1 - 2x and -1, without their
# negative parts, divided by the largest
HEAT = [[[1 / 3, 1.4 / 3], [1.8 / 3, 1]], [[1, 0.6], [0.2, 0]], [[0, 0], [0, 0]]]


@pytest.mark.parametrize("target", [0, 1, 2])
def test_heat_worked_by_hand(hand_made, target):
    heat, probabilities = grad_cam(hand_made, FACE, target=target)
    wanted = torch.zeros(1, 4, 4)
    wanted[0, 1:3, 1:3] = torch.tensor(HEAT[target])
    torch.testing.assert_close(heat, wanted)
    # the mean of x is 0.4: logits 3 * 0.4 + 0.6, -0.4 + 0.6 and -1 + 9
    logits = np.exp([1.8, 0.2, 8.0])
    np.testing.assert_allclose(probabilities.numpy(), [logits / logits.sum()], rtol=1e-5)


def test_each_face_has_its_own_target_and_the_most_probable_class_is_the_default(hand_made):
    heat, _ = grad_cam(hand_made, FACE.expand(3, -1, -1, -1), target=torch.tensor([0, 1, 2]))
    torch.testing.assert_close(heat[:, 1:3, 1:3], torch.tensor(HEAT))
    assert grad_cam(hand_made, FACE)[0].max() == 0  # class 2, for which nothing in the picture speaks


@pytest.mark.parametrize(
    ("name", "library", "size", "crop", "layer"),
    [
        ("vgg_small", "fer", 48, 44, "4"),
        # its convolutions go straight into a ReLU that works in place
        ("squeezenet1_1", "torchvision", 40, 36, "features.12.expand3x3"),
        ("resnet18", "fer", 20, 16, "7.shortcut.0"),
    ],
)
def test_heat_is_what_dimming_a_place_in_all_maps_takes_from_the_logit(tmp_path, name, library, size, crop, layer):
    ckpt = write_checkpoint(tmp_path / "net.ckpt", name, library, size=size, crop=crop, in_channels=3)
    model = load_checkpoint(ckpt)
    faces = torch.randint(0, 256, (1, 1, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    heat, probabilities = grad_cam(model, faces, layer, target=3)
    convolution, lights = convolutions(model)[layer], []

    def light(_, __, output):
        lights.append(torch.ones_like(output[:, :1], requires_grad=True))
        return output * lights[0]

    handle = convolution.register_forward_hook(light)
    logits = model(faces)
    handle.remove()
    (wanted,) = torch.autograd.grad(logits[0, 3], lights[0])
    wanted = nn.functional.interpolate(wanted.relu(), (crop, crop), mode="bilinear")[0, 0]
    edge = (size - crop) // 2
    inside = heat[0, edge : edge + crop, edge : edge + crop]
    assert wanted.max() > 0
    torch.testing.assert_close(inside, wanted / wanted.max(), rtol=1e-4, atol=1e-4)
    assert heat.shape == (1, size, size) and heat.count_nonzero() == inside.count_nonzero()
    torch.testing.assert_close(probabilities, logits.detach().softmax(1))
    # no hook stays behind, and nothing is changed by being explained
    assert not convolution._forward_hooks and all(p.grad is None for p in model.net.parameters())


@pytest.mark.parametrize(
    ("name", "size", "crop", "layer"),
    [
        # maps of 44, 22, 11 and 5 pixels, and of 24, 12, 6 and 3
        ("vgg_small", 48, 44, "8"), ("vgg_small", 28, 24, "4"),
        # 44, 22, 11, 5 and 2, as `VGG` lists them: two, two and four convolutions and two pools come before the
        # third: layer 3 * 7 + 2
        ("vgg19", 48, 44, "23"),
    ],
)  # fmt: skip
def test_the_last_layer_whose_maps_are_fine_is_shown(tmp_path, name, size, crop, layer):
    model = load_checkpoint(write_checkpoint(tmp_path / "net.ckpt", name, "fer", size=size, crop=crop))
    assert default_layer(model) == layer
    assert Explainer(model).layer == layer and Explainer(model, "0").layer == "0"
    assert not any(convolution._forward_hooks for convolution in convolutions(model).values())


def test_the_deletion_test_measures_what_a_region_carries(hand_made):
    # whose maps are all coarser than is wanted
    explainer = Explainer(hand_made)
    assert explainer.layer == "0"
    explainer.face = FaceFormat(4, "grey", 0.0)
    # of the 2 x 2 that it sees the lower right pixel is hottest: a fifth is less than one, so it is the region
    face = FACE[0, 0].numpy()
    (explanation,) = explainer.explain(face[None], [hand_made.labels[0]])
    wanted = np.zeros((4, 4), bool)
    wanted[2, 2] = True
    assert explanation.region.tolist() == wanted.tolist() and explanation.label == hand_made.labels[0]
    blurred = delete(face, explanation.region)
    assert (blurred == face)[~wanted].all() and 102 < blurred[2, 2] < 255

    # probabilities by hand, from the mean x of what it sees: logits 2x + 1, 1 - 2x and 8
    def share(seen):
        logits = np.exp(np.array([2 * seen.mean() + 1, 1 - 2 * seen.mean(), 8]))
        return (logits / logits.sum())[0]

    assert explanation.before == pytest.approx(share(face[1:3, 1:3] / 255), rel=1e-4)
    assert explanation.without == pytest.approx(share(blurred[1:3, 1:3] / 255), rel=1e-4)
    # the region may lie on each of four pixels, so that the mean lies between those of the best and the worst
    ways = []
    for row, column in ((1, 1), (1, 2), (2, 1), (2, 2)):
        place = np.zeros((4, 4), bool)
        place[row, column] = True
        ways.append(share(delete(face, place)[1:3, 1:3] / 255))
    assert explanation.without == pytest.approx(min(ways), rel=1e-4)
    assert min(ways) < explanation.elsewhere < max(ways)
    # class 2, for which nothing speaks
    (nothing,) = explainer.explain(face[None])
    assert not nothing.region.any() and nothing.without is None is nothing.elsewhere
    assert str(nothing) == f"nothing in layer {explainer.layer} speaks for {hand_made.labels[2]}"


def test_a_wrong_name_lists_the_convolutions(tmp_path):
    model = load_checkpoint(write_checkpoint(tmp_path / "net.ckpt"))
    with pytest.raises(InputError, match=r"^layer=conv9: no convolution of vgg_small; it has 0, 4, 8, 12$"):
        grad_cam(model, torch.zeros(1, 1, 20, 20, dtype=torch.uint8), "conv9")


def test_a_transformer_has_no_convolution_to_show(tmp_path):
    ckpt = write_checkpoint(tmp_path / "net.ckpt", "swin_t", "torchvision", size=40, crop=36, in_channels=3)
    with pytest.raises(InputError, match="^swin_t has no convolution whose maps Grad-CAM could show: use a network"):
        Explainer.load(ckpt)


def test_overlay_leaves_what_is_cold_and_colours_what_is_hot():
    face = np.array([[100, 7]], np.uint8)
    picture = overlay(face, np.array([[1.0, 0]], np.float32))
    # 40 % of the face and 60 % of Turbo's last colour, (122, 4, 3)
    assert picture.tolist() == [[[113, 42, 42], [7, 7, 7]]]
    color = np.stack([face, face + 1, face + 2], 2)
    assert overlay(color, np.zeros((3, 5), np.float32)).tolist() == color.tolist()


@pytest.mark.parametrize("color", ["grey", "rgb"])
def test_explainer_takes_faces_as_they_are_stored(tmp_path, color):
    explainer = Explainer.load(write_checkpoint(tmp_path / "net.ckpt", color=color, in_channels=3), device="cpu")
    faces = np.random.default_rng(0).integers(0, 256, (3, *explainer.face.shape), np.uint8)
    names = ["Happy", "Sad", "Fear"]
    heat, probabilities = explainer.heat(faces, names)
    tensor = torch.from_numpy(faces)
    images = tensor[:, None] if color == "grey" else tensor.permute(0, 3, 1, 2)
    wanted = grad_cam(explainer._model, images, target=torch.tensor([3, 4, 2]))
    np.testing.assert_array_equal(heat, wanted[0].numpy())
    np.testing.assert_array_equal(probabilities, wanted[1].numpy())
    pictures = explainer(faces, names)
    assert [picture.shape for picture in pictures] == [(20, 20, 3)] * 3
    np.testing.assert_array_equal(pictures[1], overlay(faces[1], heat[1]))
    assert explainer(faces[:0]) == []
    with pytest.raises(InputError, match="label Smug: not one of Angry, Disgust"):
        explainer(faces, ["Happy", "Sad", "Smug"])
    with pytest.raises(InputError, match=r"faces uint8 \(3, 19, .*: this checkpoint takes uint8 \(N, 20, 20"):
        explainer(faces[:, 1:])


def test_figure_shows_the_face_its_probabilities_and_the_heat(tmp_path):
    explainer = Explainer.load(write_checkpoint(tmp_path / "net.ckpt"))
    face = np.random.default_rng(0).integers(0, 256, (20, 20), np.uint8)
    drawn = explainer.figure(face, "a$b$c.jpg")
    left, middle, right, last = drawn.axes
    (explanation,) = explainer.explain(face[None])
    assert [bar.get_width() for bar in middle.patches] == pytest.approx(explanation.probabilities.tolist())
    assert [text.get_text() for text in middle.get_yticklabels()] == list(explainer.labels)
    assert drawn.get_suptitle() == "a$b$c.jpg"
    assert right.get_title() == f"Grad-CAM for {explanation.label}\nlayer {explainer.layer}"
    assert f"blurred there {explanation.without:.1%}\n" in last.get_title()
    assert left.images[0].get_array().shape == (20, 20) and right.images[0].get_array().shape == (20, 20, 3)
    np.testing.assert_array_equal(last.images[0].get_array(), delete(face, explanation.region))
    drawn.savefig(tmp_path / "a.png")


@pytest.mark.parametrize("name", ["net.onnx", "net.pt2"])
def test_an_exported_file_has_no_gradients(name):
    with pytest.raises(InputError, match=f"{name}: an exported file has no gradients; give the .ckpt"):
        Explainer.load(name)
