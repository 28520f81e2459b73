"""The recipe's mixtures and teachers against formulas worked by hand, and through the real trainer."""

import itertools
import math

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.nn import functional

from fer.data.source import FaceFormat
from fer.errors import InputError
from fer.models.checkpoint import load_checkpoint
from fer.models.networks import own_network, to_unit
from fer.training.augment import Augment
from fer.training.distillation import Teachers
from fer.training.losses import CrossEntropy, Focal, loss_of
from fer.training.recipe import Recipe
from fer.training.run import assemble, train
from fer.training.sam import SAM
from tests.conftest import fit, train_config, write_tiny

LOG2 = math.log(2)


def faces(n=64):
    return torch.rand((n, 1, 12, 12), generator=torch.Generator().manual_seed(0))


def classes(n=64, k=7):
    return torch.arange(n) % k


def test_the_empty_recipe_mixes_nothing():
    images, labels = faces(5), classes(5)
    mixed, targets = Recipe({}, 7).mix(images, labels)
    assert mixed is images and targets is labels


@pytest.mark.parametrize("key", ["mixup", "cutmix"])
@pytest.mark.parametrize("soft", [False, True])
def test_mixed_targets_sum_to_one_and_name_both_faces(key, soft):
    recipe = Recipe({key: 1.0, "mix": 1.0}, 7)
    images, hot = faces(), functional.one_hot(classes(), 7).float()
    for seed in range(5):
        torch.manual_seed(seed)
        mixed, targets = recipe.mix(images, hot if soft else classes())
        assert torch.allclose(targets.sum(1), torch.ones(64))
        # each face is mixed with the one before it, as the labels say: share * own + (1 - share) * other
        share = targets[1, 1]
        assert torch.allclose(targets, share * hot + (1 - share) * hot.roll(1, 0))
        if key == "mixup":
            assert torch.allclose(mixed, share * images + (1 - share) * images.roll(1, 0), atol=1e-6)
        else:
            other = mixed != images
            assert torch.equal(mixed, torch.where(other, images.roll(1, 0), images))
            # one box, the same of all faces, whose area is the share
            assert torch.equal(other, other[:1].expand_as(other))
            rows, columns = other[0, 0].any(1).sum(), other[0, 0].any(0).sum()
            assert other[0, 0].sum() == rows * columns
            assert share == pytest.approx(1 - float(rows * columns) / 144)
    assert torch.equal(images, faces())


def test_mix_is_the_share_of_batches_and_both_kinds_are_drawn_alike():
    recipe = Recipe({"mixup": 1.0, "cutmix": 1.0, "mix": 0.3}, 7)
    torch.manual_seed(0)
    images, kinds = faces(4), []
    for _ in range(2000):
        mixed, targets = recipe.mix(images, classes(4))
        if targets.ndim == 2:
            # what cutmix leaves is unchanged; mixup changes every pixel
            kinds.append(bool((mixed == images).any()))
    # standard deviations 0.0102 and, of 600, 0.020; a cutmix box can cover a whole face
    assert len(kinds) / 2000 == pytest.approx(0.3, abs=0.05)
    assert sum(kinds) / len(kinds) == pytest.approx(0.5, abs=0.1)


class Constant(nn.Module):
    """Logits that do not depend on the face; counts how often it is asked in training mode."""

    def __init__(self, logits):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, images):
        assert not self.training
        return self.logits.expand(len(images), -1)


def test_distillation_by_hand():
    # at T = 2 the teachers say 1/2, 1/4, 1/4 and 1/4, 1/2, 1/4: in the mean 3/8, 3/8, 1/4
    nets = [Constant([2 * LOG2, 0.0, 0.0]), Constant([0.0, 2 * LOG2, 0.0])]
    taught = Teachers(nets, 2.0)(faces(2))
    assert torch.allclose(taught, torch.tensor([[3 / 8, 3 / 8, 1 / 4]]).expand(2, 3))
    assert not taught.requires_grad
    # the student's logits halved: softmax 1/2, 1/4, 1/4 at T = 2, and 4/6, 1/6, 1/6 at T = 1
    student = torch.tensor([[2 * LOG2, 0.0, 0.0]]).expand(2, 3)
    kl = 3 / 8 * math.log(3 / 8 * 2) + 3 / 8 * math.log(3 / 8 * 4) + 1 / 4 * math.log(1 / 4 * 4)
    expected = 0.3 * math.log(6) + 0.7 * 4 * kl
    recipe, loss = Recipe({"teacher_weight": 0.7, "teacher_temperature": 2.0}, 3), torch.tensor(math.log(6))
    assert float(recipe.distil(loss, student, taught)) == pytest.approx(expected)


def weights(path):
    return torch.load(path, map_location="cpu", weights_only=True)["state_dict"]


def test_a_student_learns_from_a_teacher_that_is_in_no_checkpoint(tiny, tmp_path):
    fit(train_config(tiny, **{"trainer.max_epochs": 1}), tmp_path / "teacher")
    teacher = tmp_path / "teacher/checkpoints/last.ckpt"
    options = {"recipe.teachers": f"[{teacher}]", "recipe.mixup": 1, "recipe.mix": 0.5, "recipe.ema": 0.5}
    _, model = fit(train_config(tiny, **options), tmp_path / "student")
    student = tmp_path / "student/checkpoints/last.ckpt"
    assert weights(student).keys() == weights(teacher).keys()
    # the teacher was neither trained nor averaged
    taught = model.teachers(batch := torch.rand(3, 1, 16, 16))
    with torch.no_grad():
        assert torch.allclose(taught, (load_checkpoint(teacher).net(batch) / 2).softmax(1), atol=1e-6)
    # a student is used without its teachers
    teacher.unlink()
    assert load_checkpoint(student)(torch.zeros(1, 1, 20, 20, dtype=torch.uint8)).shape == (1, 7)


def test_teachers_of_other_classes_or_faces_are_refused(tiny, tmp_path):
    fit(train_config(tiny, **{"trainer.max_epochs": 1}), tmp_path)
    teacher = {"recipe.teachers": f"[{tmp_path / 'checkpoints/last.ckpt'}]"}
    other = write_tiny(tmp_path / "two.h5", {"train": 20, "val": 8}, class_names=("cat", "dog"))
    with pytest.raises(InputError, match="names Angry, .*, the data cat, dog: give teachers of the same classes"):
        assemble(train_config(other, **teacher), tmp_path)
    small = write_tiny(tmp_path / "small.h5", {"train": 20, "val": 8}, FaceFormat(size=18))
    with pytest.raises(InputError, match="was trained with data.size=20, not 18: give teachers of the same faces"):
        assemble(train_config(small, **teacher, **{"data.size": 18}), tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe.sam": 0}, "recipe.sam=0.0 is not a positive radius"),
        ({"recipe.sam": 0.05, "trainer.precision": "16-mixed"}, "set trainer.precision=bf16-mixed"),
        ({"recipe.sam": 0.05, "trainer.accumulate_grad_batches": 2}, "set trainer.accumulate_grad_batches=1"),
        ({"recipe.teacher_weight": 2}, "recipe.teacher_weight=2.0 is not a weight"),
        ({"recipe.teacher_temperature": 0}, "recipe.teacher_temperature=0.0 is not a number of 0.01"),
        ({"recipe.mix": 0.5}, "needs recipe.mixup or recipe.cutmix above 0"),
        ({"recipe.mix": 2}, "is not a share of the batches"),
        ({"recipe.mixup": -1}, "is not the alpha of a Beta distribution"),
        ({"recipe.ema": 1}, "is not a decay between 0 and 1"),
        ({"augment": "strong", "augment.rotate": 200}, "is not an angle of 0 to 180 degrees"),
        ({"augment": "strong", "augment.scale": 1}, "augment.scale=1 is not a fraction"),
        ({"augment": "strong", "augment.erase": 2}, "augment.erase=2 is not a probability"),
        ({"optimizer.fused": "true", "trainer.precision": "bf16-mixed"}, "set trainer.gradient_clip_val=null or"),
    ],
)
def test_values_out_of_range_are_refused_in_one_line(changes, message):
    with pytest.raises(InputError, match=message) as caught:
        train_config("faces.h5", **changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["plain", "ema", "mixed"])
def test_every_recipe_and_the_strong_augmentation_train(tiny, tmp_path, name):
    result = train(train_config(tiny, recipe=name, augment="strong", **{"trainer.max_epochs": 1}), tmp_path)
    assert 0 <= result["val/acc"] <= 1


def test_nothing_in_a_step_reads_the_device():
    # a tensor without values says so when it is read; backward would need a real GPU
    with FakeTensorMode(), torch.device("cuda"):
        net = own_network(7, "vgg_small", 1, 0.5)
        recipe, losses = Recipe({}, 7), [CrossEntropy(label_smoothing=0.1), Focal(gamma=0.5)]
        images, labels = torch.zeros((8, 1, 48, 48), dtype=torch.uint8), torch.zeros(8, dtype=torch.long)
        optimizer = SAM(torch.optim.SGD(net.parameters(), 0.1, momentum=0.9), 0.05, net)
        strong = {"rotate": 10, "scale": 0.1, "translate": 0.1, "brightness": 0.2, "contrast": 0.2, "erase": 0.5}
        for loss_function, augment in itertools.product(losses, (Augment(44), Augment(44, **strong))):

            def closure(loss_function=loss_function, augment=augment):
                faces = to_unit(augment(images))
                logits = net(faces)
                loss = recipe.distil(loss_of(loss_function, logits, labels), logits, Teachers([net], 2.0)(faces))
                net.train()
                for parameter in net.parameters():
                    parameter.grad = torch.ones_like(parameter)
                return loss

            assert optimizer.step(closure).device.type == "cuda"
        with pytest.raises(DataDependentOutputException):
            optimizer.step(closure).item()
