"""Darknet nets trained in torch: learning rates, Debian's program beside it, resuming, and nets that learn."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from fer.darknet.formats.cfg import Section, parse
from fer.darknet.formats.weights import Net, read_header
from fer.darknet.torch_engine.network import DarknetNetwork
from fer.darknet.torch_engine.training.ema import Average
from fer.darknet.torch_engine.training.module import DarknetTraining
from fer.darknet.torch_engine.training.recorder import Recorder
from fer.darknet.torch_engine.training.schedules import rate_schedule
from fer.darknet.torch_engine.weights_io import load_weights, save_weights
from fer.errors import InputError
from tests.conftest import ROOT
from tests.darknet.test_program_scores import DETECTOR

#: A whole photo as it is: no crop, colours or angle; the photo is its own mirror image.
SAME = "min_crop=16\nmax_crop=16\naspect=1\nangle=0\nhue=0\nsaturation=1\nexposure=1\n"
LAYERS = (
    "[convolutional]\nbatch_normalize=1\nfilters=8\nsize=3\nstride=1\npad=1\nactivation=leaky\n"
    "[maxpool]\nsize=2\nstride=2\n"
    "[convolutional]\nbatch_normalize=1\nfilters=16\nsize=3\nstride=1\npad=1\nactivation=leaky\n"
    "[convolutional]\nfilters=3\nsize=1\nstride=1\npad=1\nactivation=linear\n[avgpool]\n[softmax]\n"
)
NAMES = ("rot", "gruen", "blau")


def net(**options):
    return Section("net", {key: str(value) for key, value in options.items()})


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (dict(learning_rate=0.1), {1: 0.1, 500: 0.1}),
        # 0.1 (1/10)^4, 0.1 (5/10)^4, then the policy
        (dict(learning_rate=0.1, burn_in=10), {1: 1e-5, 5: 0.00625, 9: 0.06561, 10: 0.1}),
        (dict(learning_rate=0.1, policy="poly", max_batches=100, power=2), {1: 0.09801, 50: 0.025, 100: 0}),
        # the power is 4 where the cfg has none, of the burn-in too
        (dict(learning_rate=1, policy="poly", max_batches=10, burn_in=2), {1: 0.0625, 2: 0.4096, 5: 0.0625}),
        (
            dict(learning_rate=1, policy="steps", steps="4,6", scales=".1,.5"),
            {1: 1, 3: 1, 4: 0.1, 5: 0.1, 6: 0.05, 99: 0.05},
        ),
        (dict(learning_rate=1, policy="step", step=3, scale=0.5), {2: 1, 3: 0.5, 5: 0.5, 6: 0.25}),
        (dict(learning_rate=2, policy="exp", gamma=0.5), {1: 1, 3: 0.25}),
        (dict(learning_rate=2, policy="sigmoid", gamma=1, step=5), {5: 1, 4: 2 / (1 + np.exp(-1))}),
        ({}, {1: 0.001}),
    ],
)
def test_learning_rates_are_those_worked_by_hand(options, expected):
    rate = rate_schedule(net(**options))
    assert {iteration: rate(iteration) for iteration in expected} == pytest.approx(expected, rel=1e-12)


def test_a_policy_that_is_not_built_is_refused():
    with pytest.raises(InputError, match="policy=sgdr is not supported"):
        rate_schedule(net(policy="sgdr"))
    with pytest.raises(InputError, match="as many scales= as steps="):
        rate_schedule(net(policy="steps", steps="1,2", scales="0.1"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(learning_rate=-0.1), "learning_rate=-0.1 is negative"),
        # 0 to a negative power at the last iteration of a long training
        (dict(policy="poly", power=-1, max_batches=10), "power=-1 is negative"),
        (dict(policy="exp", gamma=2), "the learning rate of iteration 2,000 is over 3e.38"),
        (dict(policy="step", step=1, scale=1e200), "the learning rate of iteration 2,000 is over 3e.38"),
    ],
)
def test_a_rate_that_cannot_be_is_refused_in_one_line(options, message):
    with pytest.raises(InputError, match=message):
        rate_schedule(net(**options))(2000)


def train(module):
    """Train in this process and return the loss of each iteration."""
    losses = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if (batch_idx + 1) % pl_module.subdivisions == 0:
                losses.append(pl_module.loss)

    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=1, accumulate_grad_batches=module.subdivisions, logger=False, callbacks=[Watch()],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module)
    return losses


def classifier(photos, options="", seed=0, iterations=8):
    text = (
        f"[net]\nbatch=4\nwidth=16\nheight=16\nchannels=3\nlearning_rate=0.05\nmomentum=0.9\ndecay=0.01\n"
        f"policy=poly\npower=2\nburn_in=3\nmax_batches={iterations}\n{SAME}{options}{LAYERS}"
    )
    pl.seed_everything(seed, verbose=False)
    return DarknetTraining(parse(text), photos, NAMES, seed), text


@pytest.fixture
def photos(tmp_path):
    """Three photos of 16 x 16 that are their own mirror images, one a class."""
    generator, paths = np.random.default_rng(0), []
    for name in NAMES:
        half = generator.integers(0, 256, (16, 8, 3), np.uint8)
        path = tmp_path / f"photo_{name}.png"
        assert cv2.imwrite(str(path), np.concatenate([half, half[:, ::-1]], 1))
        paths.append(str(path))
    return paths


@pytest.mark.darknet
@pytest.mark.parametrize("subdivisions", [1, 2])
def test_debians_program_trains_to_the_same_weights(tmp_path, photos, subdivisions):
    # the program draws photos by the clock: of a list of one it can but take that one
    module, text = classifier(photos[1:2], f"subdivisions={subdivisions}\n")
    for name, layer in module.network.named_modules():
        if name.endswith("norm"):
            torch.nn.init.uniform_(layer.weight, 0.5, 1.5)
    (tmp_path / "net.cfg").write_text(text)
    (tmp_path / "list").write_text(f"{photos[1]}\n")
    (tmp_path / "labels").write_text("\n".join(NAMES) + "\n")
    (tmp_path / "net.data").write_text("classes=3\ntrain=list\nvalid=list\nlabels=labels\nbackup=.\ntop=1\n")
    save_weights(module.network, tmp_path / "start.weights", version=(0, 2, 0))
    start = [value.clone() for value in module.network.state_dict().values()]
    done = subprocess.run(
        ["darknet", "classifier", "train", "net.data", "net.cfg", "start.weights"], cwd=tmp_path, capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    lines = re.findall(r"^(\d+), [\d.]+: ([\d.]+), [\d.]+ avg, ([\d.]+) rate", done.stdout, re.M)
    assert [int(line[0]) for line in lines] == list(range(1, 9)), done.stdout + done.stderr
    losses = train(module)
    assert losses == pytest.approx([float(line[1]) for line in lines], abs=1e-4)
    rates = [module.rate(iteration) for iteration in range(1, 9)]
    assert rates == pytest.approx([float(line[2]) for line in lines], abs=1e-6)
    theirs = DarknetNetwork(module.network.sections)
    load_weights(theirs, tmp_path / "net.weights")
    assert read_header(tmp_path / "net.weights").seen == 32 == module.iteration * module.batch
    moved = 0.0
    for (name, ours), their, before in zip(
        module.network.state_dict().items(), theirs.state_dict().values(), start, strict=True
    ):
        if not name.endswith("num_batches_tracked"):
            assert torch.allclose(ours, their, rtol=0, atol=5e-4), name
            moved = max(moved, float((ours - before).abs().max()))
    # they have gone many times the tolerance
    assert moved > 0.05


def test_decay_is_on_the_weights_of_convolutions_only(photos):
    module, _ = classifier(photos)
    decayed, others = module.configure_optimizers().param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.01, 0)
    assert [tuple(weight.shape) for weight in decayed["params"]] == [(8, 3, 3, 3), (16, 8, 3, 3), (3, 16, 1, 1)]
    assert all(weight.ndim == 1 for weight in others["params"]) and len(others["params"]) == 5


@pytest.mark.parametrize("option", ["momentum=1.5", "momentum=-1", "decay=-0.1"])
def test_momentum_and_decay_that_cannot_be_are_refused(photos, option):
    text = f"[net]\nbatch=4\nwidth=16\nheight=16\nchannels=3\nmax_batches=8\n{option}\n{LAYERS}"
    with pytest.raises(InputError, match=f"{option} is n"):
        DarknetTraining(parse(text), photos, NAMES, 0)


def test_a_resumed_run_takes_the_momentum_and_decay_that_are_given_now(tmp_path, photos):
    first, text = classifier(photos)

    class Save(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            pl_module.save_state(tmp_path / "net_last.ckpt")
            trainer.should_stop = True

    pl.Trainer(
        accelerator="cpu", max_epochs=1, logger=False, callbacks=[Save()], enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    ).fit(first)  # fmt: skip
    other = text.replace("momentum=0.9", "momentum=0.5").replace("decay=0.01", "decay=0.25")
    second = DarknetTraining(parse(other), photos, NAMES, 0)
    second.load_state(tmp_path / "net_last.ckpt")
    optimizer = second.configure_optimizers()
    assert [group["momentum"] for group in optimizer.param_groups] == [0.5, 0.5]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.25, 0]
    # what was gathered before the break is there
    assert all(optimizer.state[weight]["momentum_buffer"].abs().sum() > 0 for weight in second.network.parameters())


def test_a_resumed_run_equals_an_unbroken_one(tmp_path, photos):
    whole, _ = classifier(photos, "subdivisions=2\n")
    losses = train(whole)

    class Save(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if pl_module.iteration == 3:
                pl_module.save_state(tmp_path / "net_last.ckpt")
                trainer.should_stop = True

    first, _ = classifier(photos, "subdivisions=2\n")
    pl.Trainer(
        accelerator="cpu", max_epochs=1, accumulate_grad_batches=2, logger=False, callbacks=[Save()],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    ).fit(first)  # fmt: skip
    second, _ = classifier(photos, "subdivisions=2\n", seed=0)
    with torch.no_grad():
        for weight in second.network.parameters():
            weight.zero_()
    second.load_state(tmp_path / "net_last.ckpt")
    assert second.iteration == 3
    assert train(second) == losses[3:]
    for one, other in zip(whole.network.state_dict().values(), second.network.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    (tmp_path / "cut.ckpt").write_bytes((tmp_path / "net_last.ckpt").read_bytes()[:500])
    with pytest.raises(InputError, match="cut.ckpt: no checkpoint of this net"):
        second.load_state(tmp_path / "cut.ckpt")


def test_label_smoothing_is_spread_over_the_other_classes(photos):
    module, _ = classifier(photos, "label_smooth_eps=0.1\n")
    assert module._smooth(torch.tensor([1])) == pytest.approx(torch.tensor([[0.05, 0.9, 0.05]]))
    # a mixture of 0.25 and 0.75: 0.25 * 0.9 + 0.75 * 0.05, 0.05, 0.75 * 0.9 + 0.25 * 0.05
    mixed = module._smooth(torch.tensor([[0.25, 0, 0.75]]))
    assert mixed == pytest.approx(torch.tensor([[0.2625, 0.05, 0.6875]]))


def test_the_average_of_ema_alpha_worked_by_hand():
    text = "[net]\nwidth=1\nheight=1\nchannels=1\nmax_batches=2006\nema_alpha=0.75\n"
    net = parse(f"{text}[convolutional]\nfilters=1\nactivation=linear\n[connected]\noutput=1\nactivation=linear\n")
    network = DarknetNetwork(net)
    average, (weight, other) = Average(net[0], network), (layer.linear.weight for layer in network.layers)

    def after(iteration, value):
        with torch.no_grad():
            weight.fill_(value), other.fill_(value)
        average.update(iteration)
        return weight.item()

    # from half of max_batches on, until 1,000 iterations before the end
    assert after(1002, 7) == 7 and not average.values
    assert after(1003, 4) == 4 and average.values[0].item() == 4
    assert after(1004, 8) == 8 and average.values[0].item() == 0.75 * 4 + 0.25 * 8
    with average.in_place():
        assert weight.item() == 5
    assert after(1005, 1) == 1 and average.values[0].item() == 0.75 * 5 + 0.25 * 1
    # it takes the place of the convolutions' weights, which are trained on
    assert after(1006, 9) == 4 and other.item() == 9
    assert after(1007, 3) == 3 and average.values[0].item() == 4


def test_an_average_goes_on_in_a_resumed_run(tmp_path, photos, monkeypatch):
    # the programs' 1,000 last iterations would take long
    monkeypatch.setattr("fer.darknet.torch_engine.training.ema.LAST", 2)

    def saved(begin=None):
        module, _ = classifier(photos, "ema_alpha=0.5\n", iterations=10)
        if begin:
            module.load_state(begin)

        class Save(pl.Callback):
            def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
                pl_module.save_state(tmp_path / f"{pl_module.iteration}.ckpt")

        pl.Trainer(
            accelerator="cpu", max_epochs=1, logger=False, callbacks=[Save()], enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False,
        ).fit(module)  # fmt: skip
        return [torch.load(tmp_path / f"{i}.ckpt", weights_only=True) for i in (7, 8)]

    whole, resumed = saved(), saved(tmp_path / "6.ckpt")
    for one, other in zip(whole, resumed, strict=True):
        assert len(one["average"]) == 8
        assert all(torch.equal(a, b) for a, b in zip(one["average"], other["average"], strict=True))
        assert all(torch.equal(a, other["network"][name]) for name, a in one["network"].items())
    # at the eighth of ten iterations the average has become the weights
    assert torch.equal(whole[1]["average"][0], whole[1]["network"]["layers.0.linear.weight"])
    assert not torch.equal(whole[0]["average"][0], whole[0]["network"]["layers.0.linear.weight"])


def test_options_that_are_not_built_are_refused(photos):
    with pytest.raises(InputError, match="ema_alpha= averages from max_batches / 2 to 1,000 before max_batches=8"):
        classifier(photos, "ema_alpha=0.9\n")
    with pytest.raises(InputError, match="adam=1 is not supported with darknet.engine=torch"):
        classifier(photos, "adam=1\n")
    with pytest.raises(InputError, match="time_steps=2 is not supported with darknet.engine=torch"):
        classifier(photos, "time_steps=2\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[net]\nwidth=16\nheight=8\nchannels=3\nbatch=2\nmax_batches=9\n" + LAYERS, "width=16 and height=8 .* differ"),
        (DETECTOR.replace("num=2\n", "num=2\nnms_kind=cornersnms\n"), "nms_kind=cornersnms is not supported"),
    ],
)
def test_a_net_that_cannot_be_scored_is_refused_before_its_training(text, message):
    sections, task = parse(text), "detector" if "[yolo]" in text else "classifier"
    net = Net(Path("net.weights"), Path("net.cfg"), NAMES, sections, task)
    data = SimpleNamespace(photos={"train": 3}, lists={"val": Path("val.txt")})
    with pytest.raises(InputError, match=message):
        Recorder(net, data, {"map": True, "topk": True})
    # nothing is asked of one that is only trained
    net.sections[0].options.update(batch="2", max_batches="9")
    Recorder(net, data, {"map": False, "topk": False})


def test_checkpoints_are_scored_on_the_device_of_the_training(tmp_path, monkeypatch):
    (tmp_path / "val.txt").write_text("rot.png\nblau.png\n")
    sections = parse("[net]\nwidth=16\nheight=16\nchannels=3\nbatch=2\nmax_batches=9\n" + LAYERS)
    net = Net(tmp_path / "net.weights", tmp_path / "net.cfg", NAMES, sections, "classifier")
    recorder = Recorder(
        net, SimpleNamespace(photos={"train": 3}, lists={"val": tmp_path / "val.txt"}), {"map": True, "topk": True}
    )
    asked = []
    monkeypatch.setattr(
        "fer.darknet.torch_engine.scores.classify",
        lambda net, photos, device: asked.append(device) or np.eye(3)[[0, 1]],
    )
    recorder.on_train_start(SimpleNamespace(strategy=SimpleNamespace(root_device=torch.device("cuda", 1))), None)
    # of the two photos the first is named rightly
    assert recorder._measure(net) == {"val/top1": 0.5, "val/top3": 1}
    assert asked == ["cuda:1"]


#: A net that is trained at some 100 iterations a second.
TINY = [
    "darknet=classifier_small", "darknet.engine=torch", "data=sample", "data.photos=60", "darknet.crop=face",
    "darknet.size=16", "darknet.batch=8", "trainer.accelerator=cpu",
]  # fmt: skip


def newest(home, name):
    return sorted((home / "runs" / name).iterdir())[-1]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


def test_a_run_is_like_those_of_the_program(home, run):
    done = run("train.py", *TINY, "darknet.max_batches=120", "darknet.subdivisions=2", "name=tiny", cwd=home)
    folder = newest(home, "tiny")
    assert "120 iterations of 8" in done.stdout and "torch on 1 x cpu, 32-true" in done.stdout
    assert "(drawn sample data)" in done.stdout
    backup = {path.name for path in (folder / "backup").iterdir()}
    assert backup == {f"classifier_small_{name}" for name in (
        "last.weights", "last.ckpt", "best.weights", "best.json", "final.weights"
    )}  # fmt: skip
    assert read_header(folder / "backup/classifier_small_final.weights").seen == 960
    assert (folder / "curves.png").stat().st_size > 10_000 and list((folder / "tensorboard").iterdir())
    rows = (folder / "metrics/metrics.csv").read_text().splitlines()
    assert sum(",train/loss," in row for row in rows) == 120 and sum(",val/top1," in row for row in rows) == 2
    assert json.loads((folder / "run.json").read_text())["darknet"]["program"] == "torch"
    assert "Total BFLOPs" in (folder / "layers.txt").read_text()
    best = folder / "backup/classifier_small_best.weights"
    command = f"python evaluate.py ckpt={best} darknet.engine=torch"
    assert command in done.stdout
    told = run(*command.split()[1:], "split=val", cwd=home)
    top1 = json.loads((folder / "backup/classifier_small_best.json").read_text())["score"]
    report = json.loads((folder / "evaluate/classifier_small_best-torch-sample-val/report.json").read_text())
    right = sum(report["plain"]["confusion"][i][i] for i in range(7))
    assert right / report["plain"]["n"] == pytest.approx(top1) and "DRAWN SAMPLE DATA" in told.stdout
    # a .ckpt has the numbers of the .weights that it was saved with
    last = folder / "backup/classifier_small_last"
    run("evaluate.py", f"ckpt={last}.ckpt", "darknet.engine=torch", "out=last", cwd=home)
    by_hand = DarknetNetwork(parse((folder / "classifier_small.cfg").read_text()))
    by_hand.load_state_dict(torch.load(f"{last}.ckpt", weights_only=True)["network"])
    stored = DarknetNetwork(by_hand.sections)
    load_weights(stored, last.with_suffix(".weights"))
    for one, other in zip(by_hand.parameters(), stored.parameters(), strict=True):
        assert torch.equal(one, other)
    assert json.loads((home / "last/report.json").read_text())["checkpoint"] == f"{last}.weights"


@pytest.mark.slow
def test_an_interrupted_run_goes_on_as_if_it_had_not_been(home, run):
    changes = [*TINY, "darknet.max_batches=2000", "darknet.topk=false", "trainer.enable_progress_bar=false"]
    command = [sys.executable, str(ROOT / "train.py"), *changes, "name=stopped"]
    process = subprocess.Popen(command, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    saved = []
    while not saved and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.05)
        saved = list(home.glob("runs/stopped/*/backup/*_last.ckpt"))
    assert saved, "nothing was saved"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    found = re.fullmatch(r"stopped by SIGINT; go on with the same command and resume=(\S+)", errors.splitlines()[-1])
    folder = newest(home, "stopped")
    assert found and Path(found[1]) == folder / "backup/classifier_small_last.ckpt"
    done = read_header(folder / "backup/classifier_small_last.weights").seen // 8
    assert 100 <= done < 2000
    short = [*changes[:-3], "darknet.topk=false", f"darknet.max_batches={done + 20}"]
    run("train.py", *short, "name=resumed", f"resume={folder}", cwd=home)
    rows = (newest(home, "resumed") / "metrics/metrics.csv").read_text().splitlines()
    steps = [int(row.split(",")[0]) for row in rows if ",train/loss," in row]
    assert steps == list(range(done + 1, done + 21))
    refused = run("train.py", *short, "darknet.max_batches=50", f"resume={folder}", cwd=home, code=2)
    assert f"{done:,} iterations and darknet.max_batches=50: raise it" in refused.stderr


def test_weights_that_are_not_finite_do_not_take_the_place_of_those_before(home, run):
    # a rate of 1e8 from iteration 195 on
    steps = ["darknet.policy=steps", "darknet.steps=[195,250]", "darknet.scales=[1e9,1]", "darknet.topk=false"]
    done = run("train.py", *TINY, "darknet.max_batches=300", "name=lost", *steps, cwd=home, code=2)
    last = done.stderr.splitlines()[-1]
    assert "iteration 200: weights are no longer finite and are not saved: lower darknet.learning_rate" in last
    saved = newest(home, "lost") / "backup" / "classifier_small_last.ckpt"
    assert f"go on from {saved}" in last
    state = torch.load(saved, weights_only=True)
    assert state["iteration"] == 100 and all(values.isfinite().all() for values in state["network"].values())
    assert read_header(saved.with_suffix(".weights")).seen == 800


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_photo_that_is_gone_ends_the_run_with_its_name(home, tmp_path, run, workers):
    arguments = [*TINY[:2], *TINY[4:], f"num_workers={workers}", "darknet.max_batches=50", "name=gone"]
    folder = tmp_path / "folder"
    run("prepare.py", *TINY[2:4], "format=darknet_classifier", "crop=face", f"out={folder}", cwd=home)
    for path in (folder / "photos").rglob("*.png"):
        path.unlink()
    done = run("train.py", *arguments, f"darknet.folder={folder}", cwd=home, code=2)
    assert re.search(rf"error: {folder}/photos/\S+\.png: .*make the Darknet folder anew", done.stderr)


@pytest.mark.slow
@pytest.mark.darknet
@pytest.mark.timeout(900)
def test_the_demo_learns_and_runs_in_the_program(darknet_demo, tmp_path, run):
    home = darknet_demo("torch")
    folder = home / "runs/darknet_demo/latest"
    best = json.loads((folder / "backup/classifier_small_best.json").read_text())
    # chance is 1/7
    assert best["score"] > 0.4
    weights = folder / "backup/classifier_small_best.weights"
    run("evaluate.py", f"ckpt={weights}", "split=val", f"out={tmp_path}", cwd=home)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["program"] == "pjreddie"
    # a photo more or less by another resizing
    assert report["plain"]["accuracy"] == pytest.approx(best["score"], abs=2 / report["plain"]["n"])


@pytest.mark.slow
def test_a_detector_learns_and_starts_from_first_layers(home, run):
    small = [
        "darknet=v3_tiny", "darknet.engine=torch", "data=sample", "data.photos=60", "darknet.size=64",
        "darknet.batch=8", "darknet.burn_in=5", "trainer.accelerator=cpu",
    ]  # fmt: skip
    run("train.py", *small, "darknet.max_batches=60", "name=boxes", cwd=home)
    folder = newest(home, "boxes")
    rows = [row.split(",") for row in (folder / "metrics/metrics.csv").read_text().splitlines()]
    losses = [float(value) for _, name, value in rows if name == "train/loss"]
    assert len(losses) == 60 and np.mean(losses[-10:]) < np.mean(losses[:5]) / 4
    assert [name for _, name, _ in rows if name == "val/map50"] == ["val/map50"]
    overlaps = [float(value) for _, name, value in rows if name == "train/iou"]
    assert len(overlaps) == 60 and all(0 < value < 1 for value in overlaps)
    assert np.mean(overlaps[-10:]) > np.mean(overlaps[:10])
    start = folder / "backup/v3_tiny_final.weights"
    more = [f"darknet.pretrained={start}", "darknet.pretrained_layers=11", "darknet.max_batches=6", "darknet.map=false"]
    run("train.py", *small, *more, "name=again", cwd=home)
    assert json.loads((newest(home, "again") / "run.json").read_text())["darknet"]["pretrained_layers"] == 11


@pytest.mark.slow
def test_two_processes_save_one_run(home, run, process):
    more = [
        "trainer.devices=2", "trainer.precision=bf16-mixed", "num_workers=1", "darknet.max_batches=20",
        "darknet.burn_in=2",
    ]  # fmt: skip
    done = process("train.py", *TINY, *more, "name=two", cwd=home)
    assert "torch on 2 x cpu, bf16-mixed" in done.stdout and done.stdout.count("score it:") == 1
    assert read_header(newest(home, "two") / "backup/classifier_small_final.weights").seen == 160
    refused = run("train.py", *TINY, *more, "darknet.batch=7", "name=two", cwd=home, code=2)
    assert "batch=7 cannot be divided by subdivisions=1 times 2 devices" in refused.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("trainer.max_epochs=3", "trainer.max_epochs=3 has no effect beside darknet=classifier_small; of trainer it"),
        ("model=vgg11", "model=vgg11 has no effect"),
        ("trainer.precision=16-true", "trainer.precision=16-true: not 32-true, bf16-mixed, 16-mixed or auto"),
        ("trainer.strategy=fsdp", "trainer.strategy=fsdp: .weights need the whole net"),
        ("trainer.accelerator=hpu", "hpu"),
        ("darknet.gpus=0", "set trainer.devices"),
        ("darknet.subdivisions=3", "darknet.batch=8 does not divide by darknet.subdivisions=3"),
        ("darknet.pretrained=missing.weights", "darknet.pretrained=missing.weights: no such file"),
        ("seed=-1", "seed=-1 is not within 0 and 4,294,967,295"),
        ("resume=missing", "resume=missing: no such file or folder"),
        ("resume=missing.ckpt", "missing.ckpt: no such file"),
    ],
)
def test_mistakes_give_one_line(home, run, change, message):
    done = run("train.py", *TINY, "darknet.max_batches=120", "name=wrong", change, cwd=home, code=2)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ") and message in last and "Traceback" not in done.stderr
