"""The wheel, installed as users install it: one command, from any folder, with the configs inside."""

import os
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import cv2
import pytest
from skimage import data

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def fer(tmp_path_factory):
    """Run ``fer`` of a new environment that has this wheel, and behind it the packages of the tests' environment."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    wheel = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run([*pip, *wheel], check=True, timeout=120)
    (built,) = folder.glob("*.whl")
    venv.create(folder / "env", with_pip=False)
    subprocess.run([*pip, f"--python={folder / 'env'}", "install", "--no-deps", built], check=True, timeout=120)
    (site,) = (folder / "env").glob("lib/python*/site-packages")
    # behind the wheel's own, and without its .pth files, so the checkout is not reachable by it
    (site / "others.pth").write_text(sysconfig.get_path("purelib"))
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()

    def call(*arguments, code=0):
        done = subprocess.run(
            [folder / "env/bin/fer", *arguments], cwd=elsewhere, capture_output=True, text=True, timeout=300,
            env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        )  # fmt: skip
        assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    call.site, call.home = site, elsewhere
    return call


@pytest.mark.slow
def test_the_installed_command_predicts_and_trains_from_another_folder(fer):
    cv2.imwrite(str(fer.home / "astronaut.jpg"), data.astronaut()[..., ::-1])
    done = fer("predict", "source=astronaut.jpg", "ckpt=fer2013_vgg9", "device=cpu")
    table = (fer.home / "predictions/fer2013_vgg9-astronaut/predictions.csv").read_text()
    assert table.count("astronaut.jpg") == 1, done.stdout
    fer("prepare", "data=sample", "data.photos=70")
    short = ["trainer.max_epochs=1", "trainer.limit_train_batches=2", "trainer.enable_progress_bar=false"]
    # a group of the user's own, from a folder of his
    (fer.home / "my_conf/experiment").mkdir(parents=True)
    (fer.home / "my_conf/experiment/mine.yaml").write_text(
        "# @package _global_\ndefaults: [demo, _self_]\nname: mine\n"
    )
    done = fer("train", "experiment=demo", "data.photos=70", *short)
    # what it says to type next is the command that was typed
    assert "fer evaluate ckpt=" in done.stdout
    fer("train", "--config-dir", "my_conf", "experiment=mine", "data.photos=70", *short)
    assert {path.name for path in (fer.home / "runs").iterdir()} == {"demo", "mine"}


@pytest.mark.slow
def test_the_installed_package_is_whole_and_nothing_of_the_checkout(fer):
    installed = {str(path.relative_to(fer.site)) for path in (fer.site / "fer").rglob("*") if path.is_file()}
    installed = {path for path in installed if not path.endswith(".pyc")}
    tracked = subprocess.run(
        ["git", "ls-files", "fer", "conf"], cwd=ROOT, capture_output=True, text=True
    ).stdout.split()
    assert installed == {path if path.startswith("fer/") else f"fer/{path}" for path in tracked}
    assert "MIT License" in next(fer.site.glob("fer_lightning-*.dist-info/licenses/LICENSE")).read_text()
    where = fer("--version").stdout
    assert where.startswith("fer 0.")
    assert Path(fer.site, "fer/py.typed").is_file()
