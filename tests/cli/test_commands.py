"""Every command of README and docs: checked as its script checks it, and most run on tiny data, training cut short."""

import json
import re
import shlex
import shutil
from functools import cache

import cv2
import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from fer.cli.arguments import literal
from fer.config.checks import check_data, check_keys, check_predict
from fer.config.schemas import Evaluate, Export, Look, Prepare
from fer.config.train import check_train
from fer.darknet.config import check_darknet, check_darknet_train
from fer.darknet.design.architectures import recipe
from fer.darknet.formats.cfg import render
from fer.darknet.torch_engine.network import DarknetNetwork
from fer.darknet.torch_engine.weights_io import save_weights
from fer.data.synthetic.dataset import draw_sample
from fer.errors import InputError
from tests.conftest import ROOT, copy_demo, demo_commands
from tests.data.test_prepare import affectnet_folder, fer2013_csv


def commands(text):
    """Return script and arguments of each command in blocks marked bash; ``fer train`` is train.py."""
    found = []
    for block in re.findall(r"```bash\n(.*?)```", text, re.S):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words[:1] == ["python"] and words[1].endswith(".py"):
                found.append(tuple(words[1:]))
            elif words[:1] == ["fer"]:
                found.append((f"{words[1]}.py", *words[2:]))
    # those of others: torchrun, tensorboard, aws, and the benchmarks
    return [command for command in found if command[0] in SCHEMAS or command[0] in ("train.py", "predict.py")]


SCHEMAS = {"prepare.py": Prepare, "evaluate.py": Evaluate, "export.py": Export, "look.py": Look}
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in [ROOT / "README.md", *ROOT.glob("docs/*.md")]}
COMMANDS = {page: commands(text) for page, text in PAGES.items()}
#: Those that are run, in this order: each page needs what the one before has made.
CLASSIFY = [*COMMANDS["docs/data.md"], *COMMANDS["docs/training.md"], *COMMANDS["docs/evaluation.md"]]
USE = [*COMMANDS["docs/prediction.md"], *COMMANDS["docs/export.md"]]
DARKNET = COMMANDS["docs/darknet.md"]
SHORT = [
    "trainer.accelerator=cpu", "trainer.max_epochs=1", "trainer.limit_train_batches=1", "trainer.limit_val_batches=1",
    "trainer.enable_progress_bar=false", "batch_size=4",
]  # fmt: skip


def check_each_data(script, job):
    """Check the data of a job, or each of the data sets of a list as evaluate.py composes them."""
    (names,) = [o.value() for o in OverridesParser.create().parse_overrides(job) if o.key_or_group == "data"] or [None]
    for name in names if isinstance(names, list) else [None]:
        others = [word for word in job if not word.startswith("data=")]
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            check_data(compose(script.removesuffix(".py"), job if name is None else [*others, f"data={name}"]).data)


@cache
def checked(script, *arguments):
    """Compose a command, each job of its sweep, and check it as the script does before it opens a file."""
    overrides = OverridesParser.create().parse_overrides([literal(a) for a in arguments if a != "-m"])
    # an interval is Optuna's to draw from
    listed = [override for override in overrides if not override.is_sweep_override() or override.is_discrete_sweep()]
    (jobs,) = BasicSweeper.split_arguments(listed, max_batch_size=None)
    configs = []
    for job in jobs:
        with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
            cfg = compose(script.removesuffix(".py"), job)
        if script == "train.py":
            configs.append(check_train(cfg) if cfg.darknet.name == "none" else check_darknet_train(cfg, job))
        elif script == "predict.py":
            configs.append(check_predict(cfg)[0])
            if configs[-1]["ckpt"].endswith(".weights"):
                check_darknet(cfg.darknet)
        else:
            configs.append(check_keys(cfg, SCHEMAS[script]))
            if "data" in cfg:
                check_each_data(script, job)
            if str(configs[-1].get("ckpt")).endswith(".weights"):
                check_darknet(cfg.darknet)
    return configs


ALL = dict.fromkeys((page, command) for page, found in COMMANDS.items() for command in found if "..." not in command)


@pytest.mark.parametrize(("page", "command"), ALL, ids=lambda value: value if isinstance(value, str) else "")
def test_every_command_composes_and_passes_its_checks(page, command):
    assert checked(*command), page


def test_the_runs_that_pages_name_are_those_that_their_commands_train():
    names = {config["name"] for _, command in ALL if command[0] == "train.py" for config in checked(*command)}
    for page, text in PAGES.items():
        used = set(re.findall(r"runs/(\w+)/DATE", text)) - {"NAME"}
        assert used <= names, page


def test_a_command_with_a_mistake_does_not_pass():
    with pytest.raises(InputError, match="calibration: Value 'x'"):
        checked("export.py", "ckpt=a.ckpt", "calibration=x")
    with pytest.raises(InputError, match="batch_size=0"):
        checked("train.py", "batch_size=0")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with the files that the pages' commands name."""
    home = tmp_path_factory.mktemp("home")
    affectnet_folder(home / "AffectNet", [4] * 8, [1] * 8, size=100)
    fer2013_csv(home / "fer2013.csv", [4] * 7, [2] * 7, [2] * 7, side=48)
    generator = np.random.default_rng(3)
    (home / "my_faces").mkdir()
    with open(home / "my_faces.csv", "w") as table, open(home / "raf.csv", "w") as numbers:
        table.write("path,label\n")
        numbers.write("path,label\n")
        # the folder's classes are of one's own; the table's are scored with a network that we ship
        for name, label in (("cat", "happy"), ("dog", "Sadness")):
            (home / "my_faces" / name).mkdir()
            for i in range(20):
                cv2.imwrite(str(home / "my_faces" / name / f"{i}.png"), generator.integers(0, 256, (60, 50), np.uint8))
                table.write(f"my_faces/{name}/{i}.png,{label}\n")
                numbers.write(f"my_faces/{name}/{i}.png,{1 + i % 7}\n")
    return home


@pytest.fixture(scope="module")
def photo_home(tmp_path_factory):
    """A folder with the files that the pages' commands on photos and Darknet name; AffectNet is drawn."""
    home = tmp_path_factory.mktemp("photo_home")
    draw_sample(home / "AffectNet", photos=60)
    fer2013_csv(home / "fer2013.csv", [4] * 7, [2] * 7, [2] * 7, side=48)
    (home / "my_faces").mkdir()
    # some are broken on purpose
    photos = [photo for photo in sorted((home / "AffectNet").rglob("*.jpg")) if cv2.imread(str(photo)) is not None]
    for number, photo in enumerate(photos[:6]):
        shutil.copy(photo, home / "my_faces" / f"{number}.jpg")
    shutil.copytree(home / "my_faces", home / "my_photos")
    (home / "my.cfg").write_text(render(recipe("classifier_small")))
    # the first 29 layers as the published file has them, without what they have learned
    save_weights(DarknetNetwork(recipe("v4_tiny")), home / "yolov4-tiny.conv.29", first=29)
    write_video(home / "film.mp4", sorted((home / "my_faces").iterdir()))
    return home


def write_video(path, photos):
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 10, (320, 240))
    for photo in photos:
        video.write(cv2.resize(cv2.imread(str(photo)), (320, 240)))
    video.release()


def newest(home, argument):
    """Put the newest run's folder where a page says DATE."""
    for name in set(re.findall(r"runs/(\w+)/DATE", argument)):
        runs = sorted((home / "runs" / name).iterdir())
        argument = argument.replace(f"runs/{name}/DATE", f"runs/{name}/{runs[-1].name}")
    return argument


def test_the_readme_has_the_cards_commands():
    assert ("train.py", "model=vgg19", "data=fer2021", "trainer.devices=2") in COMMANDS["README.md"]
    assert len(CLASSIFY) >= 20 and len(USE) >= 8 and len(DARKNET) >= 12


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_command_on_data_training_and_scores(home, run, process):
    for command in CLASSIFY:
        script, *arguments = [newest(home, argument) for argument in command]
        if script == "train.py":
            # a resumed run has one more epoch to go
            short = (
                [a.replace("max_epochs=1", "max_epochs=2") for a in SHORT] if "resume=" in " ".join(command) else SHORT
            )
            # further ranks are started by running the command line again
            start = process if "trainer.devices=2" in arguments else run
            done = start(script, *arguments, *short, cwd=home)
            assert "best val/acc" in done.stdout
        else:
            done = run(script, *arguments, cwd=home)
            assert done.stdout
    assert (home / "data/fer2021-48-grey.h5").is_file() and (home / "fer2013_again.csv").is_file()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_command_that_uses_a_net(demo, tmp_path, run):
    home = tmp_path
    copy_demo(demo, home)
    photos = sorted((demo / "data/sample").rglob("*.jpg"))
    for folder, count in (("my_photos", 3), ("my_faces", 6)):
        (home / folder).mkdir()
        for number, photo in enumerate(photos[:count]):
            shutil.copy(photo, home / folder / f"{number}.jpg")
    shutil.copy(photos[0], home / "photo.jpg")
    write_video(home / "clip.mp4", photos[:6])
    for script, *arguments in USE:
        if "source=0" in arguments:
            # no machine has a hundredth camera; what there is to read is said in the last line
            done = run(script, *["source=99" if a == "source=0" else a for a in arguments], cwd=home, code=2)
            assert done.stderr.splitlines()[-1] == "error: source=99: no such camera or address answers"
            continue
        assert run(script, *arguments, cwd=home).stdout
        if script == "predict.py":
            assert len(list((home / "predictions").glob("*/predictions.csv"))) == 1
            shutil.rmtree(home / "predictions")


@pytest.mark.darknet
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_darknet_command(photo_home, run, process):
    home = photo_home
    for command in DARKNET:
        script, *arguments = [newest(home, argument) for argument in command]
        text = " ".join(command)
        if script in ("prepare.py", "train.py") and ("data=scenes" in text or "scenes_v4_tiny" in text):
            # 20,000 take minutes
            arguments.append("data.photos=20")
        if script != "train.py":
            assert run(script, *arguments, cwd=home).stdout
        elif "binary=" in text:
            # AlexeyAB's program is not here; what is asked for is named
            done = run(script, *arguments, cwd=home, code=2)
            assert done.stderr.startswith("error: darknet.binary=darknet-alexeyab/darknet: ")
        else:
            # a resumed run has some more to go
            short = ["darknet.max_batches=6" if "resume=" in text else "darknet.max_batches=3", "darknet.size=64"]
            short += ["darknet.epochs=null", "darknet.burn_in=1", "darknet.batch=4", "darknet.subdivisions=1"]
            if checked(script, *arguments)[0]["data"]["name"] == "sample":
                short += ["data.photos=60"]
            if "engine=torch" in text:
                # 16-mixed is for GPUs
                short += ["trainer.accelerator=cpu", "trainer.precision=32-true"]
            start = process if "trainer.devices=2" in arguments else run
            done = start(script, *arguments, *short, cwd=home)
            assert "score it: python evaluate.py ckpt=" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_make_demo_trains_a_net_that_a_linear_classifier_does_not_match(demo, tmp_path, run):
    """What ``make demo`` ends with, on the full sample data; a linear one stays under 60 % (data/test_synthetic.py)."""
    *made, command = demo_commands()
    # the fixture has run these two in its folder
    assert [script for script, *_ in made] == ["prepare.py", "train.py"] and command[0] == "evaluate.py"
    copy_demo(demo, tmp_path)
    done = run(*command, cwd=tmp_path)
    assert "DRAWN SAMPLE DATA" in done.stdout and "confusion matrix: " in done.stdout
    report = json.loads((tmp_path / "runs/demo/latest/evaluate/best-sample-test/report.json").read_text())
    assert report["drawn"] and report["plain"]["n"] == 476
    assert report["plain"]["accuracy"] > 0.9 and report["ten_crop"]["accuracy"] > 0.9


def test_make_targets_are_those_of_the_readme():
    makefile = (ROOT / "Makefile").read_text()
    assert "experiment=demo" in makefile and "-m pytest" in makefile
    assert (ROOT / ".ci/run").read_text().rstrip().endswith("make test-all")


def test_what_make_demo_runs_passes_its_checks():
    (prepared,), (trained,), (scored,) = [checked(*command) for command in demo_commands()]
    assert prepared["format"] == "h5" and trained["data"]["name"] == "sample"
    # the run is scored in the folder that the second command is given
    (folder,) = [a.removeprefix("hydra.run.dir=") for a in demo_commands()[1] if a.startswith("hydra.run.dir=")]
    assert (scored["ckpt"], scored["split"]) == (f"{folder}/checkpoints/best.ckpt", "test")
