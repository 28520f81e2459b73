"""Configuration: every option of every group composes, checks and builds; a mistake gives one line."""

import ast
import inspect
import re
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from fer.api import detector_arguments
from fer.cli.arguments import check_choices, literal
from fer.config.checks import check_data, check_predict
from fer.config.train import TRAINER_OWN, check_train
from fer.darknet.config import check_darknet_train
from fer.errors import InputError
from fer.models.registry import build_network
from fer.targets import build
from fer.training.augment import Augment
from fer.training.schedules import Length, make_scheduler
from fer.training.wild import Wild
from tests.conftest import ROOT

CONF = ROOT / "conf"
OPTIONS = [(path.parent.name, path.stem) for path in sorted(CONF.glob("*/*.yaml"))]


def train_cfg(*overrides):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose("train", list(overrides))


#: Choices that stand for a part of the user's.
USERS = [
    ("model", "custom"), ("data", "custom"), ("data", "module"), ("loss", "custom"), ("augment", "custom"),
    ("schedule", "custom"),
]  # fmt: skip
#: Data that no other command takes.
TRAINED_ON = {"module"}
#: Transforms one after another, of which there are none yet.
CHAIN = ["augment=custom", "augment._target_=fer.training.augment.Chain"]
#: Choices whose packages are not among ours.
HOSTED = [("logger", name) for name in ("wandb", "mlflow", "comet", "trackio")]


def no_schedule(optimizer):
    return 3


class Hoarding(torch.optim.lr_scheduler.ExponentialLR):
    """A schedule whose state is an object of its own."""

    def __init__(self, optimizer):
        self.mine = Path("x")
        super().__init__(optimizer, 0.9)


def same_rate(optimizer):
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    return torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)


def of(group):
    return [name for g, name in OPTIONS if g == group]


@pytest.mark.parametrize(
    ("group", "option"), [pair for pair in OPTIONS if pair[0] != "faces" and pair not in USERS + HOSTED]
)
def test_every_option_composes_and_passes_its_checks(group, option):
    cfg = train_cfg(f"{group}={option}")
    if cfg.darknet.name != "none":
        if OmegaConf.is_missing(cfg.darknet, "pretrained"):
            with pytest.raises(InputError, match="darknet.pretrained is missing: give darknet.pretrained=VALUE"):
                check_darknet_train(cfg, [])
            cfg.darknet.pretrained = "a.weights"
        assert check_darknet_train(cfg, [])["darknet"]["name"] == cfg.darknet.name
        return
    config = check_train(cfg)
    assert config["trainer"]["_target_"] == "pytorch_lightning.Trainer"


def whole_picture(picture):
    return [(0, 0, *picture.shape[1::-1])], [1.0]


def test_a_function_that_is_the_detector_is_told_of_partial():
    words = ["faces=custom", f"faces._target_={__name__}.whole_picture", "source=a.jpg", "ckpt=a.ckpt"]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        wrong, right = (compose("predict", [*words, *more]) for more in ([], ["+faces._partial_=true"]))
    with pytest.raises(InputError, match="of a function that is the detector itself say faces._partial_=true"):
        check_predict(wrong)
    detector = detector_arguments(check_predict(right)[1])["faces"]
    assert detector(np.zeros((20, 30, 3), np.uint8)) == ([(0, 0, 30, 20)], [1.0])


@pytest.mark.parametrize("option", of("faces"))
def test_every_way_to_find_faces_passes_its_checks(option):
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("predict", [f"faces={option}", "source=a.jpg", "ckpt=a.ckpt"])
    if option == "custom":
        with pytest.raises(InputError, match="faces._target_ is missing"):
            check_predict(cfg)
        return
    keys, faces = check_predict(cfg)
    assert (keys["source"], faces["name"]) == ("a.jpg", option)


@pytest.mark.parametrize("option", [option for option in of("model") if option != "custom"])
def test_every_model_builds(option):
    config = check_train(train_cfg(f"model={option}"))
    network = build_network(config["model"], 7)
    assert sum(p.numel() for p in network.parameters()) > 10_000


@pytest.mark.parametrize("option", of("optimizer"))
def test_every_optimizer_builds(option):
    config = check_train(train_cfg(f"optimizer={option}"))
    optimizer = build(config["optimizer"], params=torch.nn.Linear(2, 2).parameters())
    assert isinstance(optimizer, torch.optim.Optimizer)


@pytest.mark.parametrize("option", [option for option in of("schedule") if option != "custom"])
def test_every_schedule_builds(option):
    config = check_train(train_cfg(f"schedule={option}"))
    optimizer = torch.optim.SGD(torch.nn.Linear(2, 2).parameters(), lr=1.0)
    made = make_scheduler(config["schedule"], optimizer, Length(10, 20))
    assert made["interval"] == ("step" if option == "onecycle" else "epoch")


@pytest.mark.parametrize("option", [name for name in of("trainer") if name != "ddp"])
def test_every_trainer_builds(option):
    config = check_train(train_cfg(f"trainer={option}"))
    assert isinstance(build(config["trainer"] | {"logger": False, "enable_checkpointing": False}), pl.Trainer)


def test_every_key_is_commented_or_plain():
    # a reader of conf/train.yaml and of each data set learns there what a key means
    for path in [CONF / "train.yaml", *(CONF / "data").glob("*.yaml"), *(CONF / "darknet").glob("*.yaml")]:
        for line in path.read_text().split("\nhydra:")[0].splitlines():
            key, colon, value = line.partition(":")
            if colon and key[0].isalpha() and key not in ("defaults", "name", "trainer") and value.strip():
                assert "#" in line or path.stem.endswith("_96"), f"{path.name}: {line}"


def test_no_argument_is_the_original_experiment():
    config = check_train(train_cfg())
    assert config == check_train(train_cfg("experiment=seed_fer2021_vgg19")) | {"name": config["name"]}
    assert config["name"] == "fer2021_vgg19"


@pytest.mark.parametrize("data", ["fer2013", "affectnet", "fer2021"])
def test_seed_presets_hold_the_original_table(data):
    config = check_train(train_cfg(f"experiment=seed_{data}_vgg19"))
    # the table of the original README: 48 x 48, SGD, batch 64, 0.01, momentum 0.9, 5e-4, decay after 60 every 5
    assert (config["data"]["name"], config["data"]["size"], config["model"]["name"]) == (data, 48, "vgg19")
    assert config["optimizer"] == {
        "_target_": "torch.optim.SGD", "lr": 0.01, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": False,
        "fused": None,
    }  # fmt: skip
    assert config["schedule"] == {
        "_target_": "fer.training.schedules.step", "interval": "epoch", "monitor": None,
        "start": 60, "every": 5, "rate": 0.9,
    }  # fmt: skip
    assert config["param_groups"] == {"no_decay": False, "layer_decay": None} and config["freeze"] is None
    off = ("rotate", "scale", "translate", "brightness", "contrast", "erase")
    ours = "fer.training.augment.Augment"
    assert config["augment"] == {"_target_": ours, "crop": 44, "flip": 0.5, **dict.fromkeys(off, 0)}
    assert (config["batch_size"], config["trainer"]["max_epochs"]) == (64, 250)
    assert (config["trainer"]["gradient_clip_val"], config["trainer"]["gradient_clip_algorithm"]) == (0.1, "value")


#: What the experiments give beyond the original one; all others give nothing.
BEYOND = {
    "base_fer2013": ({"label_smoothing": 0.1}, {"ema": 0.999}),
    "small_fer2013": ({"label_smoothing": 0.1}, {"ema": 0.999}),
    "strong_fer2013_resnet18": (
        {"label_smoothing": 0.1},
        {"ema": 0.9995, "mixup": 0.2, "cutmix": 1.0, "mix": 0.5},
    ),
}


@pytest.mark.parametrize("option", of("experiment"))
def test_experiments_train_by_the_losses_and_recipes_that_they_name(option):
    cfg = train_cfg(f"experiment={option}")
    if cfg.darknet.name != "none":
        assert option not in BEYOND
        return
    config = check_train(cfg)
    loss, recipe = BEYOND.get(option, ({}, {}))
    plain = {"label_smoothing": 0.0, "class_weights": "none", "logit_adjustment": 0.0}
    assert config["loss"] == {"_target_": "fer.training.losses.CrossEntropy"} | plain | loss
    off = {
        "mixup": 0.0, "cutmix": 0.0, "mix": 0.0, "sam": None, "teachers": None, "teacher_weight": 0.9,
        "teacher_temperature": 2.0, "ema": None, "sampler": "shuffle", "votes": "none",
    }  # fmt: skip
    assert config["recipe"] == off | recipe


DARKNET_PRESETS = {
    "seed_classifier_tiny": ("classifier_tiny", 224, 400200, None),
    "seed_classifier_omega": ("classifier_omega", 256, 40000, None),
    "seed_v3_tiny_affectnet": ("v3_tiny", 256, 400000, 11),
    "seed_v3_tiny_imagenet": ("v3_tiny", 256, 400000, None),
    "seed_v4_tiny_imagenet": ("v4_tiny", 256, 400000, None),
    "seed_v4_affectnet": ("v4", 256, 400000, 105),
    "seed_v4_imagenet": ("v4", 256, 400000, None),
}


@pytest.mark.parametrize("preset", DARKNET_PRESETS)
def test_darknet_presets_hold_the_original_chains_and_table(preset):
    cfg = train_cfg(f"experiment={preset}", "darknet.pretrained=a.weights")
    config = check_darknet_train(cfg, [])
    darknet = config["darknet"]
    found = tuple(darknet[key] for key in ("name", "size", "max_batches", "pretrained_layers"))
    assert (config["data"]["name"], found) == ("affectnet", DARKNET_PRESETS[preset])
    assert config["name"] == preset
    if "classifier" not in preset:
        # the original table: batch 64, momentum 0.9, decay 0.0005, 0.00261, burn_in 1000, policy steps
        keys = ("batch", "momentum", "decay", "learning_rate", "burn_in", "policy")
        assert tuple(darknet[key] for key in keys) == (64, 0.9, 0.0005, 0.00261, 1000, "steps")


@pytest.mark.parametrize("override", ["model=vgg11", "schedule.start=3", "+trainer.x=1", "batch_size=3", "init=a.ckpt"])
def test_options_of_the_torch_side_are_refused_beside_darknet(override):
    with pytest.raises(InputError, match="has no effect beside darknet=v3_tiny"):
        check_darknet_train(train_cfg("darknet=v3_tiny"), ["darknet=v3_tiny", override])


def test_a_darknet_net_in_torch_takes_the_trainers_devices():
    given = ["darknet=v3_tiny", "darknet.engine=torch", "trainer=cpu", "trainer.devices=2", "seed=3"]
    config = check_darknet_train(train_cfg(*given), given)
    assert (config["trainer"]["accelerator"], config["trainer"]["devices"], config["seed"]) == ("cpu", 2, 3)
    with pytest.raises(InputError, match="trainer.max_epochs=3 has no effect beside darknet=v3_tiny; of trainer it"):
        check_darknet_train(train_cfg(*given), [*given, "trainer.max_epochs=3"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("darknet.batch=0", "darknet.batch=0 is not a positive number"),
        ("darknet.epochs=-1", "darknet.epochs=-1.0 is not a positive number"),
        ("darknet.size=large", "darknet.size: Value 'large'"),
        ("+darknet.batchs=1", r"there is no key darknet.batchs \(did you mean batch\?\)"),
        ("darknet.engine=tarch", "darknet.engine=tarch: not binary or torch"),
    ],
)
def test_mistakes_in_darknet_are_named(override, message):
    with pytest.raises(InputError, match=message):
        check_darknet_train(train_cfg("darknet=v3_tiny", override), [])


def test_runs_are_named_after_the_net():
    assert train_cfg("darknet=v4_tiny", "data=affectnet").name == "affectnet_v4_tiny"
    assert train_cfg("data=affectnet").name == "affectnet_vgg19"


def test_the_earlier_programs_preset():
    config = check_train(train_cfg("experiment=wujie_fer2013_vgg19"))
    assert (config["batch_size"], config["schedule"]["start"], config["data"]["name"]) == (128, 80, "fer2013")


def test_the_second_weight_decay_and_other_sizes_are_overrides():
    config = check_train(train_cfg("optimizer.weight_decay=4e-5", "data.size=96"))
    assert config["optimizer"]["weight_decay"] == 4e-5
    assert config["augment"]["crop"] == 88 and config["data"]["file"] == "data/fer2021-96-grey.h5"


def test_presets_leave_the_precision_to_the_machine():
    assert {name: check_train(train_cfg(f"experiment={name}"))["trainer"]["precision"] for name in (
        "cpu_fer2013", "small_fer2013", "base_fer2013", "strong_fer2013_resnet18", "seed_fer2013_vgg19",
    )} == {
        "cpu_fer2013": "auto", "small_fer2013": "auto", "base_fer2013": "auto", "strong_fer2013_resnet18": "auto",
        "seed_fer2013_vgg19": "32-true",
    }  # fmt: skip


def test_the_trainer_group_spells_out_real_arguments():
    keys = set(OmegaConf.load(CONF / "trainer/default.yaml")) - {"_target_"}
    assert keys <= set(inspect.signature(pl.Trainer).parameters)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["augment.crop=60"], "augment.crop=60 does not fit into data.size=48"),
        (["augment.flip=2"], "augment.flip=2 is not a probability"),
        (["augment.flip=x"], "augment.flip=x: not a finite number, as fer.training.augment.Augment takes it"),
        (["augment.crop=0"], "augment.crop=0 does not fit into data.size=48"),
        (["+augment.rotatee=3"], r"there is no key augment.rotatee \(did you mean rotate\?\)"),
        (["augment=custom"], "augment._target_ is missing: it names the class to build"),
        (
            ["augment=custom", "augment._target_=torch.optim.SGD"],
            "augment._target_=torch.optim.SGD: not a torch Mod",
        ),
        (
            ["augment=custom", "augment._target_=kornja.augmentation.RandomAffine"],
            "augment._target_=kornja.augmentation.RandomAffine: there is no such class: no module kornja in",
        ),
        (
            ["augment=custom", "augment._target_=kornia.augmentation.RandomAffine", "+augment.degreees=3"],
            r"there is no key augment.degreees \(did you mean degrees\?\)",
        ),
        (
            ["augment=custom", "augment._target_=torchvision.transforms.v2.RandomHorizontalFlip", "+augment.p=2"],
            "augment._target_=torchvision.transforms.v2.RandomHorizontalFlip: cannot be built: ValueError: `p` ",
        ),
        ([*CHAIN, "+augment.transforms=[a]"], "augment.transforms.0: 'a' is no torch.nn.Module: name one by _target_"),
        ([*CHAIN, "+augment.transforms=[{p: 1}]"], "augment.transforms.0: {'p': 1} is no torch.nn.Module: name one"),
        (
            [*CHAIN, "+augment.transforms=[{_target_: torch.nn.Sequantial}]"],
            "augment.transforms.0._target_=torch.nn.S",
        ),
        ([*CHAIN, "+augment.crop=0.5"], "augment.crop=0.5: not a whole number or null, as fer.training.augment.Chain"),
        (
            [*CHAIN, "+augment.transforms=[]", "+augment.crop=60"],
            "augment.crop=60 does not fit into data.size=48: it",
        ),
        (["batch_size=0"], "batch_size=0 is not a positive number"),
        (["batch_size=63", "trainer.devices=2"], "batch_size=63 is the global batch and does not divide by"),
        (["data.color=rgb", "model.in_channels=1"], "data.color=rgb needs model.in_channels=3"),
        (["data.size=4"], "data.size=4: not between 8 and 1024"),
        (["data.margin=-1"], "data.margin=-1.0: not a fraction"),
        (["schedule=step", f"schedule.rate={'9' * 400}"], "schedule.rate=9{40}: not a finite number"),
        (["batch_size=many"], "batch_size: Value 'many'"),
        (["resume=a", "init=b"], "give one of them"),
        (["tags=baseline"], r"tags=baseline: not a list: give tags=\[baseline\]"),
        (["tags=[a,3]"], r"tags: 3 is not text: give tags=\[WORD,WORD\]"),
        (["tags=['']"], "tags: '' is not a word of 1 to 64 characters"),
        (["tags=[" + "a" * 65 + "]"], "tags: 'a{65}' is not a word of 1 to 64 characters"),
        (["notes=[a]"], r"notes=\['a'\]: not text: give 'notes=SOME TEXT'"),
        (["optimizer._target_=torch.optim.Sgd"], "optimizer._target_=torch.optim.Sgd: there is no such class"),
        (["+optimizer.betas=[1,2]"], r"there is no key optimizer.betas.*torch.optim.SGD takes lr, momentum"),
        (["+trainer.max_epoch=3"], r"there is no key trainer.max_epoch \(did you mean max_epochs\?\)"),
        (["+trainer.default_root_dir=a"], "trainer.default_root_dir=a would have no effect: .* hydra.run.dir=FOLDER"),
        (["+trainer.logger=true"], "trainer.logger=True would have no effect: choose with logger=NAME, or"),
        (["+trainer.callbacks=[]"], r"trainer.callbacks=\[\] would have no effect: add your own by callbacks="),
        (["+trainer.plugins=null"], "trainer.plugins=None would have no effect: checkpoints are written by one of"),
        (["+trainer.use_distributed_sampler=true"], "trainer.use_distributed_sampler=True would have no effect: the"),
        (["+trainer.log_every_n_steps=50"], "trainer.log_every_n_steps=50 would have no effect: each step is logged"),
        (
            ["+model.depth=3"],
            "there is no key model.depth; fer.models.networks.own_network takes name, in_channels, dropout",
        ),
        (["+modle=vgg11"], r"there is no key modle \(did you mean .*valid in the config"),
        (
            ["trainer.accumulate_grad_batches=0"],
            "trainer.accumulate_grad_batches=0 is not a number of batches; 1 is off",
        ),
        (["trainer.accumulate_grad_batches=x"], "trainer.accumulate_grad_batches=x: not a whole number"),
        (["+trainer.val_check_interval=0"], "trainer.val_check_interval=0 is not a number of batches of 1 or more, or"),
        (["+trainer.val_check_interval=1.5"], "trainer.val_check_interval=1.5 is not a number of batches of 1 or more"),
        (
            ["trainer.limit_train_batches=0"],
            "trainer.limit_train_batches=0 is not a number of batches of 1 or more, or",
        ),
        (["trainer.overfit_batches=1.5"], "trainer.overfit_batches=1.5 is not a number of batches of 1 or more, or a"),
        (["+callbacks.mine=3"], "callbacks.mine=3: not a group of keys: give callbacks.NAME._target_=CLASS"),
        (["+callbacks.mine.patience=3"], "callbacks.mine._target_ is missing: it names the class to build"),
        (["+callbacks.mine._target_=torch.nn.Linear"], "callbacks.mine._target_=torch.nn.Linear: not a pytorch_light"),
        (["+callbacks.mine._target_=my_lb.Mine"], "callbacks.mine._target_=my_lb.Mine: there is no such class: no mod"),
        (["callbacks=lr_monitor", "+callbacks.lr_monitor.every=3"], "there is no key callbacks.lr_monitor.every; pyt"),
        (["+logger.tensorboard.save_dir=a"], "logger.tensorboard.save_dir=a: is given to .* by the program; leave it"),
        (["+logger.metrics={_target_: a.b}"], "logger.metrics: not a name for its folder in the run folder"),
        (["+logger.mine._target_=torch.nn.Linear"], "logger.mine._target_=torch.nn.Linear: not a pytorch_lightning L"),
        (["logger=comet"], "logger.comet: comet-ml is not installed: pip install comet-ml"),
        (["optimizer._target_=os.system"], "optimizer._target_=os.system: not a torch Optimizer"),
        (["trainer._target_=torch.nn.Linear"], "trainer._target_=torch.nn.Linear: not a pytorch_lightning Trainer"),
        (["+schedule.name=cosine"], "schedule.name=cosine has moved: give schedule=cosine"),
        (["schedule=custom"], "schedule._target_ is missing: it names the class to build"),
        (["schedule.interval=batch"], "schedule.interval=batch: not epoch or step"),
        (["schedule.every=1.5"], "schedule.every=1.5: not a whole number, as fer.training.schedules.step takes it"),
        (["+schedule.optimizer=1"], "schedule.optimizer=1: is given to .* by the program; leave it out"),
        (["schedule=cosine", "+schedule.epochs=9"], "schedule.epochs=9: is given to .* by the program; leave it out"),
        (
            ["schedule.monitor=val/acc"],
            "schedule.monitor=val/acc has no effect: fer.training.schedules.step follows no",
        ),
        (["schedule=plateau", "schedule.monitor=null"], "schedule.monitor=null: give a score, as val/acc"),
        (
            ["schedule=plateau", "schedule.monitor=val/f1"],
            "schedule.monitor=val/f1: not logged of an epoch: give one of",
        ),
        (["schedule=plateau", "schedule.monitor=val/loss"], "schedule.mode=max: for val/loss give schedule.mode=min"),
        (["schedule=plateau", "schedule.interval=step"], "schedule.interval=step: val/acc is known once an epoch"),
        (
            ["schedule=plateau", "trainer.check_val_every_n_epoch=2"],
            "schedule.monitor=val/acc needs a validation every epoch",
        ),
        (["schedule=onecycle", "schedule.pct_start=3.0"], "OneCycleLR refuses schedule.pct_start=3.0: Expected float"),
        (["schedule=onecycle", "schedule.div_factor=0"], "OneCycleLR refuses .*schedule.div_factor=0.*: ZeroDivision"),
        (
            [
                "schedule=onecycle",
                "optimizer._target_=torch.optim.Adagrad",
                "~optimizer.momentum",
                "~optimizer.nesterov",
            ],
            "OneCycleLR refuses schedule.cycle_momentum=True: optimizer must support momentum",
        ),
        (
            ["schedule=onecycle", "trainer.max_epochs=-1"],
            "trainer.max_epochs=-1 is not a number of epochs, which torch",
        ),
        (
            ["schedule=custom", "schedule._target_=torch.optim.SGD"],
            "schedule._target_=torch.optim.SGD: takes no optimi",
        ),
        (
            ["schedule=custom", f"schedule._target_={__name__}.no_schedule"],
            "no_schedule: gives int, not a torch schedu",
        ),
        (["schedule=custom", f"schedule._target_={__name__}.Hoarding"], "Hoarding: its state_dict.. must hold numbers"),
        (
            ["param_groups.layer_decay=0"],
            "param_groups.layer_decay=0.0 is not a factor above 0 and up to 1; null is off",
        ),
        (["param_groups.no_decay=5x"], "param_groups.no_decay: Value '5x'"),
        (["+param_groups.nodecay=true"], r"there is no key param_groups.nodecay \(did you mean no_decay\?\)"),
        (
            ["schedule=custom", f"schedule._target_={__name__}.same_rate", "param_groups.layer_decay=0.5"],
            "param_groups.layer_decay: .*same_rate sets rates of its own, the same for all layers",
        ),
        (["freeze=layer1"], "freeze: "),
        (["freeze=[]"], r"freeze=\[\]: not a list of patterns of parameter names"),
        (["unfreeze_epoch=3"], "unfreeze_epoch=3 has no effect without freeze="),
        (
            ["freeze=['0.*']", "unfreeze_epoch=0"],
            "unfreeze_epoch=0 is not a number of epochs from 1 to below trainer.max",
        ),
        (
            ["freeze=['0.*']", "unfreeze_epoch=250"],
            "unfreeze_epoch=250 is not a number of epochs from 1 to below trainer",
        ),
        (["freeze=['0.*']", "trainer.strategy=fsdp"], "freeze cannot tell parameters apart with trainer.strategy=fsdp"),
        (["data.name=fer"], "data.name=fer: not one of sample, fer2013"),
    ],
)
def test_mistakes_are_named(overrides, message):
    with pytest.raises(InputError, match=message) as error:
        check_train(train_cfg(*overrides))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("group", sorted({group for group, _ in OPTIONS} - {"callbacks", "logger"}))
def test_several_of_a_group_of_which_one_is_chosen_are_refused(group):
    names = ",".join(of(group)[:2])
    with pytest.raises(InputError, match=rf"{group}=\[{names}\]: one is chosen here: give {group}=NAME") as error:
        check_choices([f"{group}=[{names}]"], CONF)
    assert "\n" not in str(error.value)


def test_several_of_the_other_groups_are_taken():
    check_choices(["callbacks=[none,lr_monitor]", "logger=[tensorboard,none]", "augment=none"], CONF)
    check_choices(["data=[fer2013,affectnet]"], CONF, several=("data",))


def test_what_training_gives_the_trainer_itself_is_refused_and_nothing_else():
    calls = [node for node in ast.walk(ast.parse((ROOT / "fer/training/run.py").read_text())) if type(node) is ast.Call]
    (call,) = [call for call in calls if ast.unparse(call).startswith("build(settings")]
    assert {keyword.arg for keyword in call.keywords} == set(TRAINER_OWN)


@pytest.mark.parametrize("option", [option for option in of("augment") if option != "custom"])
def test_every_augmentation_lists_every_key(option):
    written = list(OmegaConf.load(CONF / f"augment/{option}.yaml"))
    assert written == ["_target_", *inspect.signature(Wild if option == "wild" else Augment).parameters]
    # without a plus before it
    assert check_train(train_cfg(f"augment={option}", "augment.rotate=10"))["augment"]["rotate"] == 10


def test_a_yaml_file_with_a_typo_is_refused():
    cfg = train_cfg("data=folder")
    OmegaConf.set_struct(cfg, False)
    cfg.data.colour = "rgb"
    with pytest.raises(
        InputError, match=r"there is no key data.colour \(did you mean color\?\); valid in data: name, file"
    ):
        check_data(cfg.data)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["modle=vgg11"], "error: there is no key modle (did you mean model?); valid in train: augment, bare_step"),
        (["schedule.name=step"], "error: schedule.name has moved: give schedule=NAME, as schedule=cosine\n"),
        (["model.nam=x"], "error: there is no key model.nam (did you mean name?); valid in model: "),
        (["model=vgg20"], "error: there is no model=vgg20 (did you mean vgg9?): give one of custom, resnet18, re"),
        (["trainer.devises=2"], "error: there is no key trainer.devises (did you mean devices?); valid in trainer: "),
        (["batch_size=x"], "error: batch_size: Value 'x'"),
        (
            ["data=fer2013"],
            "error: data/fer2013-48-grey.h5: no such file; make it with "
            "`python prepare.py data=fer2013 data.raw=PATH`, or try `python train.py experiment=demo`",
        ),
        (
            [],
            "error: data/fer2021-48-grey.h5: no such file; make it with "
            "`python prepare.py data=fer2021 data.affectnet=PATH data.fer2013=PATH`",
        ),
        (["data=folder", "batch_size"], "error: "),
        (
            ["optimizer=null"],
            "error: optimizer=null: optimizer is a group of keys, which is chosen by a name: give optimizer=NAME "
            "(adamw, sgd)\n",
        ),
        (["optimizer=[1]"], "error: optimizer=[1]: optimizer is a group of keys, which is chosen by a name: give opt"),
        (["-m", "optimizer=sgd,null"], "error: optimizer=sgd,null: optimizer is a group of keys, which is chosen by a"),
        (["hydra=null"], "error: hydra=null: hydra is a group of keys, which is chosen by a name\n"),
        (["optimizer._target_=torch.optim"], "error: optimizer._target_=torch.optim: neither a class nor a function\n"),
        (
            ["optimizer._target_=torch.optim.SDG"],
            "error: optimizer._target_=torch.optim.SDG: there is no such class: SDG is not in torch.optim "
            "(did you mean SGD?)\n",
        ),
        (["optimizer.lr=abc"], "error: optimizer.lr=abc: not a finite number, as torch.optim.SGD takes it\n"),
        (["optimizer.lr=null"], "error: optimizer.lr=null: not a finite number, as torch.optim.SGD takes it\n"),
        (["optimizer.lr=nan"], "error: optimizer.lr=nan: not a finite number, as torch.optim.SGD takes it\n"),
        (["trainer.precision=foo"], "error: trainer.precision=foo: not 64 or 32 or 16"),
        (["seed=" + "9" * 5000], f"error: seed={'9' * 20}... (5,000 characters): cannot be read as a value (Exceeds"),
        (
            ["model={_target_:torch.nn.Linear}"],
            "error: there is no key model.name; torch.nn.Linear takes in_features, out_features, bias, device, dtype\n",
        ),
        (["recipe.class_weights=balanced"], "error: recipe.class_weights has moved: give loss.class_weights\n"),
        (["+recipe.label_smoothing=0.1"], "error: recipe.label_smoothing has moved: give loss.label_smoothing\n"),
        (["recipe=smooth"], "error: recipe=smooth is no more: give recipe=ema loss=smooth\n"),
        (["--epochs", "5"], "error: --epochs 5: keys are KEY=VALUE without dashes: trainer.max_epochs=5\n"),
        (["--batch-size", "5"], "error: --batch-size 5: keys are KEY=VALUE without dashes: batch_size=5\n"),
        (["--lr=0.1", "-m"], "error: --lr 0.1: keys are KEY=VALUE without dashes: optimizer.lr=0.1\n"),
        (["--resum"], "error: --resum: keys are KEY=VALUE without dashes (did you mean resume?); valid in train: aug"),
        (["epochs=5"], "error: there is no key epochs (did you mean trainer.max_epochs?); valid in train: augment, "),
        (["-m", "model=vgg11,vgg20"], "error: there is no model=vgg20 (did you mean vgg"),
        (["-m", "batch_size=1,x"], "error: "),
        (
            ["callbacks=typo"],
            "error: there is no callbacks=typo: give one of lr_monitor, none, or a file of your own, "
            "callbacks/typo.yaml in the folder of --config-dir\n",
        ),
        (["callbacks=[lr_monitor,lr_monitr]"], "error: there is no callbacks=lr_monitr (did you mean lr_monitor?): "),
        (["callbacks=[]"], "error: callbacks=[]: none is chosen by its name: give callbacks=none\n"),
        (["logger=[]"], "error: logger=[]: none is chosen by its name: give logger=none\n"),
        (["trust={a: b}"], "error: trust={a: b}: not a list: give trust=[VALUE,VALUE]\n"),
        (["tags=word"], "error: tags=word: not a list: give tags=[word]\n"),
        (["--cfg"], "error: --cfg/-c: expected one argument; give --cfg job or --cfg hydra or --cfg all\n"),
        (["--cfg", "model=vgg11"], "error: --cfg/-c: invalid choice: 'model=vgg11' (choose from "),
        (["--config-dir"], "error: --config-dir/-cd: expected one argument; give --config-dir CONFIG_DIR\n"),
    ],
)  # fmt: skip
def test_mistakes_on_the_command_line_give_one_line(run, tmp_path, arguments, message):
    done = run("train.py", *arguments, cwd=tmp_path, code=2)
    assert done.stderr.startswith(message)
    assert len(done.stderr.splitlines()) == 1 and "Traceback" not in done.stderr


def test_a_source_with_dashes_is_told_its_key(run, tmp_path):
    done = run("predict.py", "--source", "IMG (1).jpg", "ckpt=a.ckpt", cwd=tmp_path, code=2)
    assert done.stderr == ("error: --source IMG (1).jpg: keys are KEY=VALUE without dashes: source='IMG (1).jpg'\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "# @package _global_\noptimizer: null\n",
            "error: optimizer=None: not a group of keys: choose one with optimi",
        ),
        ("# @package _global_\nschedule: null\n", "error: schedule=None: not a group of keys"),
        (
            "# @package _global_\ndarknet: null\n",
            "error: darknet=None: not a group of keys: choose one with darknet=NAME\n",
        ),
        ("seed: {", "error: {file}: cannot be read as a config: while parsing a flow node expected"),
        ("3", "error: {file}: cannot be read as a config: Invalid loaded object type: int; correct it"),
        ("seed: ${", "error: {file}: cannot be read as a config: no viable alternative at input '${{'"),
        ("seed: 3\0", "error: {file}: cannot be read as a config: unacceptable character #x0000"),
        ("seed: \udcff", "error: {file}: cannot be read as a config: 'utf-8' codec can't decode byte 0xff in position"),
        ("defaults: 3\n", "error: the configuration cannot be composed: Invalid defaults list in 'experiment/mine'"),
        ("defaults: [[1]]\n", "error: "),
        (
            "# @package _global_\ndefaults:\n  - override /augment: [strong, none]\n",
            "error: augment: a config chooses a list, and one is chosen here: let it say `override /augment: NAME`; a "
            "list of transforms is one fer.training.augment.Chain\n",
        ),
        (
            "# @package _global_\ndefaults:\n  - override /schedule: [cosine, step]\n",
            "error: schedule: a config chooses a list, and one is chosen here: let it say `override /schedule: NAME`\n",
        ),
    ],
)
def test_mistakes_in_a_file_of_ones_own_give_one_line(run, tmp_path, text, message):
    (tmp_path / "my/experiment").mkdir(parents=True)
    file = tmp_path / "my/experiment/mine.yaml"
    file.write_text(text, errors="surrogateescape")
    done = run("train.py", f"--config-dir={tmp_path}/my", "experiment=mine", cwd=tmp_path, code=2)
    assert done.stderr.startswith(message.format(file=file)) and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("flag", [["--config-dir", "my"], ["--config-dir=my"]])
def test_options_stand_anywhere_and_the_keys_of_ones_own_choices_are_named(run, tmp_path, flag):
    (tmp_path / "my/loss").mkdir(parents=True)
    (tmp_path / "my/loss/mine.yaml").write_text("_target_: torch.nn.MultiMarginLoss\nmargin: 0.5\n")
    done = run("train.py", "model=vgg11", *flag, "loss=mine", "--cfg", "job", "batch_size=7", cwd=tmp_path)
    config = OmegaConf.create(done.stdout)
    assert (config.loss.margin, config.model.name, config.batch_size) == (0.5, "vgg11", 7)
    done = run("train.py", "model=vgg11", *flag, "loss=mine", "loss.margn=1", cwd=tmp_path, code=2)
    assert done.stderr == "error: there is no key loss.margn (did you mean margin?); valid in loss: _target_, margin\n"


def test_trust_is_a_list(run, tmp_path):
    done = run("evaluate.py", "ckpt=a.ckpt", "trust=my_lab", cwd=tmp_path, code=2)
    assert done.stderr == "error: trust=my_lab: not a list: give trust=[my_lab]\n"


@pytest.mark.parametrize("script", ["train.py", "evaluate.py", "prepare.py", "predict.py", "export.py", "look.py"])
def test_help_reads_well(run, tmp_path, script):
    done = run(script, "--help", cwd=tmp_path)
    assert "\n\n\n" not in done.stdout and done.stdout[-2:] != "\n\n" and not re.search(" $", done.stdout, re.M)
    assert f"python {script}" in done.stdout and "Choices (group=choice):" in done.stdout
    assert "Powered by Hydra" not in done.stdout and list(Path(tmp_path).iterdir()) == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["seed=-1"], "seed=-1 is not between 0 and 4294967295"),
        (["data.seed=-1"], "data.seed=-1 is not between 0 and 4294967295"),
        (["recipe.teacher_temperature=1e50"], "recipe.teacher_temperature=1e+50 is not a number of 0.01 to 100"),
        (["num_workers=-1"], "num_workers=-1 is not a number of processes"),
        (["early_stop=0"], "early_stop=0 is not a number of epochs"),
        (["trainer.max_epochs=0"], "trainer.max_epochs=0 is not a number of epochs"),
        (["trainer.max_epochs=-1", "schedule=cosine"], "trainer.max_epochs=-1 is not a number of epochs"),
        (["trainer.limit_val_batches=0"], "leaves no val/acc to choose the best epoch by: give 1 or more"),
        (["trainer.max_epochs=3", "trainer.check_val_every_n_epoch=4"], "give 1 to trainer.max_epochs=3"),
        (["schedule=step", "schedule.every=0"], "schedule.every=0 is not a positive number of epochs"),
        (["schedule=step", "schedule.rate=0"], "schedule.rate=0 is not a positive factor"),
        (["schedule=cosine", "schedule.warmup=-1"], "schedule.warmup=-1 is not a number of epochs"),
        (["schedule=cosine", "schedule.floor=2"], "schedule.floor=2 is not a fraction of the first rate"),
        (["schedule=plateau", "schedule.factor=1"], "schedule.factor=1 is not a factor between 0 and 1"),
    ],
)
def test_numbers_that_no_run_can_have_are_refused(overrides, message):
    with pytest.raises(InputError, match=re.escape(message)):
        check_train(train_cfg(*overrides))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ("optimizer.lr=null", "optimizer.lr=null: not a finite number, as torch.optim.SGD takes it"),
        ("optimizer.lr=nan", "optimizer.lr=nan: not a finite number, as"),
        ("optimizer.lr=inf", "optimizer.lr=inf: not a finite number, as"),
        ("optimizer.lr=abc", "optimizer.lr=abc: not a finite number, as"),
        ("optimizer.lr=true", "optimizer.lr=True: not a finite number, as"),
        ("optimizer.lr=1e39", "optimizer.lr=1e+39 is beyond what the weights' float32 can hold"),
        ("optimizer.lr=-0.1", "optimizer.lr=-0.1 is below 0"),
        ("optimizer.momentum=[1]", "optimizer.momentum=[1]: not a finite number, as"),
        ("optimizer.nesterov=3", "optimizer.nesterov=3: not true or false, as"),
        ("optimizer.fused=x", "optimizer.fused=x: not true or false or null, as"),
        ("optimizer.nesterov=true optimizer.momentum=0", "torch.optim.SGD refuses optimizer.lr, optimizer.momentum, "),
        ("optimizer=adamw +optimizer.betas=[0.9]", "optimizer.betas=[0.9]: not a list of 2, each a finite number, as"),
        ("optimizer=adamw +optimizer.betas=[0.9,2]", "torch.optim.AdamW refuses optimizer.lr, optimizer.weight_decay"),
        ("trainer.precision=foo", "trainer.precision=foo: not 64 or 32 or 16 or transformer-engine or "),
        ("trainer.accelerator=null", "trainer.accelerator=null: not a text, as pytorch_lightning.Trainer takes it"),
        ("trainer.devices=1.5", "trainer.devices=1.5: not a list or a text or a whole number, as"),
        ("trainer.gradient_clip_val=nan", "trainer.gradient_clip_val=nan: not a whole number or a finite number or"),
        ("trainer.gradient_clip_val=-1", "trainer.gradient_clip_val=-1 is below 0; null is off"),
        ("trainer.deterministic=foo", "trainer.deterministic=foo: not true or false or warn or null, as"),
        ("trainer.max_time=5", "trainer.max_time=5: not a text or a group of keys or null, as"),
        ("trainer.num_sanity_val_steps=x", "trainer.num_sanity_val_steps=x: not a whole number or null, as"),
        (
            "trainer.num_sanity_val_steps=-5",
            "trainer.num_sanity_val_steps=-5 is not a number of batches; 0 is off, -1 ",
        ),
        ("trainer.sync_batchnorm=foo", "trainer.sync_batchnorm=foo: not true or false, as"),
    ],
)
def test_values_that_a_target_cannot_take_are_named(overrides, message):
    with pytest.raises(InputError) as caught:
        check_train(train_cfg(*overrides.split()))
    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "group", "key", "value"),
    [
        ("optimizer.lr=0", "optimizer", "lr", 0),
        ("optimizer.lr=5e-4", "optimizer", "lr", 0.0005),
        ("optimizer=adamw +optimizer.betas=[0.9,0.99]", "optimizer", "betas", [0.9, 0.99]),
        ("trainer.precision=16", "trainer", "precision", 16),
        ("trainer.precision=auto", "trainer", "precision", "auto"),
        ("trainer.devices=[0,1]", "trainer", "devices", [0, 1]),
        ("trainer.max_time={hours:2}", "trainer", "max_time", {"hours": 2}),
        ("trainer.gradient_clip_val=1", "trainer", "gradient_clip_val", 1),
        ("trainer.deterministic=warn", "trainer", "deterministic", "warn"),
    ],
)
def test_values_that_a_target_takes_stay_as_they_are(overrides, group, key, value):
    given = check_train(train_cfg(*overrides.split()))[group][key]
    assert given == value and type(given) is type(value)


def test_a_value_below_0_is_taken_where_the_usual_one_is():
    cfg = train_cfg()
    cfg.optimizer = {"_target_": "torch.optim.Adafactor", "beta2_decay": -0.7}
    assert check_train(cfg)["optimizer"]["beta2_decay"] == -0.7
    cfg.optimizer = {"_target_": "torch.optim.Adafactor", "weight_decay": -0.7}
    with pytest.raises(InputError, match="optimizer.weight_decay=-0.7 is below 0"):
        check_train(cfg)


@pytest.mark.parametrize(
    ("optimizer", "groups", "message"),
    [
        ("Rprop", "no_decay=true", "param_groups.no_decay=True has no effect: torch.optim.Rprop has no weight_decay"),
        ("LBFGS", "layer_decay=0.7", "torch.optim.LBFGS refuses optimizer.lr: LBFGS doesn't support per-parameter"),
    ],
)
def test_optimizers_that_have_no_such_groups_are_named(optimizer, groups, message):
    cfg = train_cfg(f"param_groups.{groups}")
    cfg.optimizer = {"_target_": f"torch.optim.{optimizer}", "lr": 0.1}
    with pytest.raises(InputError, match=re.escape(message)):
        check_train(cfg)


def test_an_endless_run_and_rare_validation_are_allowed():
    assert check_train(train_cfg("trainer.max_epochs=-1", "schedule=constant"))["trainer"]["max_epochs"] == -1
    rare = ["trainer.max_epochs=4", "trainer.check_val_every_n_epoch=4"]
    assert check_train(train_cfg(*rare))["trainer"]["check_val_every_n_epoch"] == 4


def as_hydra_reads(argument):
    return OverridesParser.create().parse_override(literal(argument)).value()


@pytest.mark.parametrize(
    "name",
    [
        "Müller.jpg", "喜び.mp4", "IMG (1).jpg", "it's.jpg", "a=b.jpg", "a,b.jpg", "[x] 1.jpg", "new\nline é.jpg",
        "2024_01", "10.50", "true", "1e3", "é\\", "plain.jpg", "two words.jpg",
    ],
)  # fmt: skip
def test_a_name_that_is_there_is_taken_as_it_is_written(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    Path(name).touch()
    assert as_hydra_reads(f"source={name}") == name
    # a rank that Lightning starts gets what is quoted already
    assert as_hydra_reads(literal(f"source={name}")) == name


@pytest.mark.parametrize("value", ["rtsp://u:p@host:554/cam?channel=1&subtype=0", "Fotos/ü*.jpg", "2024_01"])
def test_addresses_globs_and_new_folders_are_taken_as_they_are_written(value):
    assert as_hydra_reads(f"source={value}") == value and as_hydra_reads(f"out={value}") == value


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("source=0", 0), ("out=null", None), ("ckpt=[a,b]", ["a", "b"]), ("source='a b'", "a b"),
        ("trainer.devices=2", 2), ("out=runs/${data.name}", "runs/${data.name}"), ("batch_size=1_000", 1000),
    ],
)  # fmt: skip
def test_what_hydra_reads_stays_its_own(argument, value):
    assert literal(argument) == argument and as_hydra_reads(argument) == value


@pytest.mark.parametrize("argument", ["-m", "--config-dir=ü", "model=vgg11,resnet18", "ckpt=[a,b", "~data"])
def test_sweeps_flags_and_broken_lists_stay_as_they_are(argument):
    assert literal(argument) == argument
