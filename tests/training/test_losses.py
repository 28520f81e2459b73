"""The losses against formulas worked by hand and other libraries, the user's own through the real trainer."""

import math
import re

import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision.ops import sigmoid_focal_loss

from fer.errors import InputError
from fer.models.checkpoint import load_checkpoint
from fer.training.losses import CrossEntropy, Focal, loss_of, require_targets
from fer.training.run import assemble
from tests.conftest import fit, train_config, write_tiny
from tests.training.test_run import arguments, losses

# softmax of these: 1/2, 1/4, 1/4
LOGITS = torch.tensor([[math.log(2.0), 0.0, 0.0]])
LOG2, LOG4 = math.log(2), math.log(4)


def test_the_usual_loss_is_cross_entropy_alone():
    logits, labels = torch.randn(5, 7), torch.arange(5)
    assert torch.equal(CrossEntropy()(logits, labels), functional.cross_entropy(logits, labels))
    assert not CrossEntropy().state_dict()


def test_label_smoothing_by_hand():
    # target 0.9 + 0.1 / 3, 0.1 / 3, 0.1 / 3
    expected = (0.9 + 0.1 / 3) * LOG2 + 2 * 0.1 / 3 * LOG4
    assert float(CrossEntropy(label_smoothing=0.1)(LOGITS, torch.tensor([0]))) == pytest.approx(expected)


def test_soft_labels_by_hand():
    target = torch.tensor([[0.2, 0.5, 0.3]])
    assert float(CrossEntropy()(LOGITS, target)) == pytest.approx(0.2 * LOG2 + 0.8 * LOG4)


@pytest.mark.parametrize("soft", [False, True])
def test_class_weights_by_hand(soft):
    # 60, 30 and 10 faces of 100: 100 / (3 * count); their mean over faces is 1
    loss = CrossEntropy([60, 30, 10], class_weights="balanced")
    labels = torch.tensor([0, 2])
    target = functional.one_hot(labels, 3).float() if soft else labels
    expected = (100 / 180 * LOG2 + 100 / 30 * LOG4) / 2
    assert float(loss(LOGITS.expand(2, 3), target)) == pytest.approx(expected)
    assert not loss.state_dict()


def test_logit_adjustment_by_hand():
    # tau 1 multiplies the odds 2 : 1 : 1 by 60 : 30 : 10, which makes 120 : 30 : 10
    loss = CrossEntropy([60, 30, 10], logit_adjustment=1.0)
    assert float(loss(LOGITS, torch.tensor([2]))) == pytest.approx(math.log(160 / 10))
    # tau 2: 2 * 3600 : 900 : 100
    loss = CrossEntropy([60, 30, 10], logit_adjustment=2.0)
    assert float(loss(LOGITS, torch.tensor([1]))) == pytest.approx(math.log(8200 / 900))


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_is_torchvisions_of_two_classes(gamma, soft):
    logits = torch.randn((64, 2), generator=torch.Generator().manual_seed(0)) * 3
    labels = torch.arange(64) % 2
    target = functional.one_hot(labels, 2).float() if soft else labels
    # softmax of two logits is the sigmoid of their difference
    theirs = sigmoid_focal_loss(logits[:, 1] - logits[:, 0], labels.float(), -1, gamma, "mean")
    assert float(Focal(gamma=gamma)(logits, target)) == pytest.approx(float(theirs), rel=1e-5)
    # alpha 1/4 of the second class and 3/4 of the first, as of one face to three: 4 / (2 * 1) is 8/3 of 3/4
    theirs = sigmoid_focal_loss(logits[:, 1] - logits[:, 0], labels.float(), 0.25, gamma, "mean")
    ours = Focal([1, 3], gamma, "balanced")(logits, target)
    assert float(ours) == pytest.approx(8 / 3 * float(theirs), rel=1e-5)


def test_focal_is_kerass_of_several_classes():
    # the example of keras.losses.CategoricalFocalCrossentropy, whose alpha is 0.25 and gamma 2
    probabilities = torch.tensor([[0.05, 0.95, 1e-7], [0.1, 0.8, 0.1]])
    targets = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert 0.25 * float(Focal()(probabilities.log(), targets)) == pytest.approx(0.23315276, rel=1e-5)


def test_focal_with_probabilities_by_hand():
    # p = 1/2, 1/4, 1/4
    target = torch.tensor([[0.2, 0.5, 0.3]])
    expected = 0.2 * (1 / 2) ** 3 * LOG2 + 0.8 * (3 / 4) ** 3 * LOG4
    assert float(Focal(gamma=3.0)(LOGITS, target)) == pytest.approx(expected)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_of_a_sure_face_has_a_finite_gradient(gamma):
    # in float32 its probability is 1
    logits = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)
    Focal(gamma=gamma)(logits, torch.tensor([0])).backward()
    assert torch.equal(logits.grad, torch.zeros(1, 3))


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda counts: CrossEntropy(counts, class_weights="balanced"), "class_weights"),
        (lambda counts: CrossEntropy(counts, logit_adjustment=1.0), "logit_adjustment"),
        (lambda counts: Focal(counts, class_weights="balanced"), "class_weights"),
    ],
)
def test_a_class_without_faces_is_refused(make, key):
    with pytest.raises(InputError, match=rf"loss\.{key} needs .* class 1 \(counted from 0\) has none: leave it out"):
        make([5, 0, 5])


def test_counts_of_the_training_split_reach_the_loss_and_the_checkpoint(tmp_path):
    # 20 faces of 7 classes: 3 of the first six, 2 of the last
    file = write_tiny(tmp_path / "few.h5", {"train": 20, "val": 14})
    options = {"loss.class_weights": "balanced", "loss.logit_adjustment": 1, "trainer.max_epochs": 1}
    _, module = fit(train_config(file, **options), tmp_path)
    again = load_checkpoint(tmp_path / "checkpoints/last.ckpt")
    assert again.hyper_parameters["counts"] == [3, 3, 3, 3, 3, 3, 2]
    weight = 20 / 7 * torch.tensor([1 / 3] * 6 + [1 / 2])
    adjusted = torch.tensor([0.15] * 6 + [0.1]).log().expand(7, 7)
    expected = functional.cross_entropy(adjusted, torch.arange(7), weight, reduction="none").mean()
    assert float(module.loss(torch.zeros(7, 7), torch.arange(7))) == pytest.approx(float(expected))


class Learned(nn.Module):
    """Cross entropy of logits times a factor that is learnt; a buffer counts the steps."""

    def __init__(self, num_classes: int, start: float = 1.0):
        super().__init__()
        self.scale = nn.Parameter(torch.full((num_classes,), start))
        self.register_buffer("steps", torch.tensor(0))

    def forward(self, logits, targets):
        assert logits.dtype == torch.float32
        self.steps += 1
        return functional.cross_entropy(logits * self.scale, targets)


class Unreduced(nn.Module):
    def forward(self, logits, targets):
        return functional.cross_entropy(logits, targets, reduction="none")


class Number(nn.Module):
    def forward(self, logits, targets):
        return functional.cross_entropy(logits, targets).item()


class Cut(nn.Module):
    def forward(self, logits, targets):
        return functional.cross_entropy(logits.detach(), targets)


class InPlace(nn.Module):
    def forward(self, logits, targets):
        logits -= logits.amax(1, keepdim=True).detach()
        return functional.cross_entropy(logits, targets)


class Relabels(nn.Module):
    def forward(self, logits, targets):
        targets.zero_()
        return functional.cross_entropy(logits, targets)


class Fails(nn.Module):
    def forward(self, logits, targets):
        return {}["logits"]


def of_logits(logits, targets, margin: float = 1.0):
    return functional.cross_entropy(logits, targets)


class Weighted(nn.Module):
    """One weight a class, which only the data say how many there are."""

    def __init__(self, num_classes: int, weights: list[float]):
        super().__init__()
        assert len(weights) == num_classes, f"{len(weights)} weights for {num_classes} classes"
        self.register_buffer("weights", torch.tensor(weights))

    def forward(self, logits, targets):
        return functional.cross_entropy(logits, targets, self.weights)


class Strict(nn.Module):
    def __init__(self, margin: float = 0.5):
        super().__init__()
        assert margin > 0, "margin must be positive"


def module_of_a_function(margin: float = 1.0) -> nn.Module:
    return nn.MultiMarginLoss(margin=margin)


def number_of_a_function(margin: float = 1.0) -> float:
    return margin


def own(target, **arguments):
    # a class of this module, or one that is named whole
    target = target if "." in target else f"{__name__}.{target}"
    return {"loss": "custom", "loss._target_": target} | {f"+loss.{key}": value for key, value in arguments.items()}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss.label_smoothing": 1}, "loss.label_smoothing=1 is not a fraction from 0 to below 1"),
        ({"loss.label_smoothing": "much"}, "loss.label_smoothing=much: not a finite number"),
        ({"loss.class_weights": "fair"}, "loss.class_weights=fair: not none or balanced"),
        ({"loss.logit_adjustment": -1}, "loss.logit_adjustment=-1 is not a factor"),
        ({"loss": "focal", "loss.gamma": -1}, "loss.gamma=-1 is not an exponent"),
        ({"loss": "focal", "+loss.gama": 1}, r"there is no key loss.gama \(did you mean gamma\?\)"),
        ({"+loss.counts": "[1,2]"}, "loss.counts=.* is given to .* by the program; leave it out"),
        (
            {"loss.class_weights": "balanced", "recipe.sampler": "balanced"},
            "loss.class_weights=balanced and recipe.sampler=balanced correct the same twice: give one",
        ),
        ({"+recipe.logit_adjustment": 1}, "recipe.logit_adjustment has moved: give loss.logit_adjustment"),
        ({"loss": "custom"}, "loss._target_ is missing"),
        (own("torch.optim.SGD", params=1), "loss._target_=torch.optim.SGD: not a torch Module"),
        (own("Strict", margin=-1), "Strict: cannot be built: AssertionError: margin must be positive"),
        (own("Strict", margin="wide"), "loss.margin=wide: not a finite number"),
        (own("of_logits"), "of_logits: a function of logits and targets, where one is wanted that gives a torch"),
        (own("torch.nn.functional.cross_entropy"), "cross_entropy: a function of input and target, where one"),
        (own("number_of_a_function"), "number_of_a_function: gives float, not a torch.nn.Module"),
    ],
)
def test_what_no_loss_can_be_is_refused_in_one_line(changes, message):
    with pytest.raises(InputError, match=message) as caught:
        train_config("faces.h5", **changes)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (own("Unreduced"), "Unreduced gives torch.float32 (32,), not a scalar: let it return the mean over faces"),
        (own("Number"), "Number gives float, not a scalar"),
        (own("Cut"), "Cut gives a value that has no gradient, so nothing is learnt"),
        (own("InPlace"), "InPlace changes the logits or targets that it is given in place"),
        (own("Relabels"), "Relabels changes the logits or targets that it is given in place"),
        (own("Fails"), "Fails fails on labels (N,) as targets: KeyError: 'logits'"),
        (
            own("module_of_a_function") | {"recipe.mix": 1, "recipe.mixup": 1},
            "torch.nn.modules.loss.MultiMarginLoss fails on probabilities (N, classes) as targets, which recipe.mix",
        ),
    ],
)
def test_what_a_loss_gives_is_checked_before_the_first_step(tiny, tmp_path, changes, message):
    config = train_config(tiny, **changes)
    with pytest.raises(InputError, match=f"^loss: .*{re.escape(message)}") as caught:
        assemble(config, tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_a_loss_that_comes_to_change_the_logits_is_refused_in_that_step(precision):
    logits = torch.zeros(4, 7, dtype=torch.bfloat16 if precision == "bf16-true" else torch.float, requires_grad=True)
    with pytest.raises(InputError, match="InPlace changes the logits or targets that it is given in place"):
        loss_of(InPlace(), logits * 1, torch.arange(4))


def test_the_trial_of_a_loss_leaves_it_and_the_draws_as_they_are():
    loss = Learned(7)
    before = torch.random.get_rng_state()
    require_targets(loss, 7, 32, labels=True, probabilities=True)
    assert int(loss.steps) == 0 and torch.equal(torch.random.get_rng_state(), before)


def test_a_loss_for_the_classes_of_the_data_is_built_when_they_are_known(tmp_path):
    file = write_tiny(tmp_path / "two.h5", {"train": 20, "val": 8}, class_names=("cat", "dog"))
    _, module, _, _ = assemble(train_config(file, **own("Weighted", weights="[1.0,3.0]")), tmp_path)
    assert module.loss.weights.tolist() == [1, 3]
    with pytest.raises(InputError, match="Weighted: cannot be built: AssertionError: 3 weights for 2 classes"):
        assemble(train_config(file, **own("Weighted", weights="[1.0,1.0,3.0]")), tmp_path)


def test_a_function_that_gives_a_loss_of_torch_trains(tiny, tmp_path):
    _, module = fit(train_config(tiny, **own("module_of_a_function", margin=0.5)), tmp_path)
    assert isinstance(module.loss, nn.MultiMarginLoss) and module.loss.margin == 0.5
    assert float(module.trainer.callback_metrics["train/loss"]) < 0.45


def test_what_a_loss_learns_and_counts_resumes_bit_for_bit(tiny, tmp_path):
    options = own("Learned", start=2.0) | {"recipe.sam": 0.05, "recipe.ema": 0.5, "trainer.precision": "bf16-mixed"}
    fit(train_config(tiny, **options), tmp_path / "whole")
    fit(train_config(tiny, **options, **{"trainer.max_epochs": 1}), tmp_path / "cut")
    ckpt = tmp_path / "cut/checkpoints/last.ckpt"
    fit(train_config(tiny, **options, resume=ckpt), tmp_path / "rest")
    whole, rest = (
        torch.load(tmp_path / name / "checkpoints/last.ckpt", weights_only=True) for name in ("whole", "rest")
    )
    for part in ("state_dict", "current_model_state"):
        assert whole[part].keys() == rest[part].keys()
        assert all(torch.equal(whole[part][key], rest[part][key]) for key in whole[part])
    # two epochs of five steps, of which SAM's second passes are none
    assert int(whole["state_dict"]["loss.steps"]) == 10
    assert (whole["state_dict"]["loss.scale"] != 2).all()
    # the network is used without its loss
    network = load_checkpoint(tmp_path / "whole/checkpoints/last.ckpt").net.state_dict()
    assert {f"net.{name}" for name in network} | {"loss.scale", "loss.steps"} == whole["state_dict"].keys()


@pytest.mark.parametrize("name", ["smooth", "focal"])
def test_every_loss_trains_with_all_of_the_recipe(tiny, tmp_path, name):
    fit(train_config(tiny, **{"trainer.max_epochs": 1}), tmp_path / "teacher")
    options = {
        "loss": name, "loss.class_weights": "balanced", "recipe": "mixed", "recipe.ema": 0.8, "recipe.sam": 0.05,
        "recipe.teachers": f"[{tmp_path / 'teacher/checkpoints/last.ckpt'}]", "recipe.teacher_weight": 0.2,
        "trainer.precision": "bf16-mixed", "trainer.max_epochs": 10,
    }  # fmt: skip
    trainer, _ = fit(train_config(tiny, **options), tmp_path / "run")
    # of seven classes, by the average of the weights
    assert float(trainer.callback_metrics["val/acc"]) > 0.6


@pytest.mark.slow
def test_two_ranks_equal_one(tmp_path, run, process):
    # no batch norm, no augmentation, no dropout, and a last batch that is not full, as in test_run
    from fer.data.source import FaceFormat

    file = write_tiny(tmp_path / "big.h5", {"train": 150, "val": 41}, FaceFormat(size=32))
    common = [
        "model=torchvision", "model.name=squeezenet1_1", "model.dropout=0", "augment=none", "trainer.max_epochs=2",
        "batch_size=32", "data.size=32", "augment.crop=32", "loss=focal", "loss.class_weights=balanced",
    ]  # fmt: skip
    run("train.py", *arguments(file, tmp_path / "one", *common))
    process("train.py", *arguments(file, tmp_path / "two", *common, "trainer.devices=2"))
    for one, two in zip(losses(tmp_path / "one"), losses(tmp_path / "two"), strict=True):
        assert two == pytest.approx(one, rel=1e-4)


def test_resuming_with_another_loss_is_refused(tiny, tmp_path):
    fit(train_config(tiny, **{"trainer.max_epochs": 1, "loss": "smooth"}), tmp_path)
    last = tmp_path / "checkpoints/last.ckpt"
    wrong = {
        r"loss.label_smoothing=0.1, not 0.0; give the command of that run again": {},
        r"loss._target_=fer.training.losses.CrossEntropy, not fer.training.losses.Focal": {"loss": "focal"},
    }
    for message, changes in wrong.items():
        with pytest.raises(InputError, match=f"was trained with {message}"):
            assemble(train_config(tiny, resume=last, **changes), tmp_path / "x")
    assemble(train_config(tiny, resume=last, loss="smooth"), tmp_path / "x")


def test_an_argument_more_is_another_loss(tiny, tmp_path):
    fit(train_config(tiny, **own("module_of_a_function"), **{"trainer.max_epochs": 1}), tmp_path)
    last = tmp_path / "checkpoints/last.ckpt"
    with pytest.raises(InputError, match="was trained with loss.margin=None, not 2"):
        assemble(train_config(tiny, resume=last, **own("module_of_a_function", margin=2)), tmp_path / "x")


def test_checkpoints_whose_recipe_held_the_loss_are_gone_on_with(tiny, tmp_path):
    fit(train_config(tiny, **{"trainer.max_epochs": 1, "loss": "smooth", "recipe.ema": 0.5}), tmp_path)
    content = torch.load(tmp_path / "checkpoints/last.ckpt", weights_only=True)
    parameters = content["hyper_parameters"]
    # as version 0.1.0 wrote it
    del parameters["loss"]
    parameters["recipe"] |= {"label_smoothing": 0.1, "class_weights": "none", "logit_adjustment": 0.0}
    torch.save(content, old := tmp_path / "checkpoints/old.ckpt")
    assert load_checkpoint(old).hyper_parameters["loss"] == {
        "_target_": "fer.training.losses.CrossEntropy", "label_smoothing": 0.1, "class_weights": "none",
        "logit_adjustment": 0.0,
    }  # fmt: skip
    assert "label_smoothing" not in load_checkpoint(old).hyper_parameters["recipe"]
    with pytest.raises(InputError, match="was trained with loss.label_smoothing=0.1, not 0.2"):
        assemble(train_config(tiny, resume=old, **{"recipe.ema": 0.5, "loss.label_smoothing": 0.2}), tmp_path / "x")
    trainer, _ = fit(train_config(tiny, resume=old, **{"recipe.ema": 0.5, "loss": "smooth"}), tmp_path / "rest")
    assert trainer.current_epoch == 2
    assert load_checkpoint("fer2013_vgg9").hyper_parameters["loss"]["label_smoothing"] == 0.1
