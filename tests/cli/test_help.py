"""`--help`: examples, then groups, then every key with a line that says what it does, the wanted ones first."""

import os
import pty
import re
import subprocess
import sys

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from tests.conftest import ROOT

FER = "fer/__main__.py"

#: What somebody who starts with a command sets first.
FIRST = {
    "train": ["trainer.max_epochs", "optimizer.lr", "batch_size", "init", "resume"],
    "evaluate": ["ckpt", "split", "out"],
    "predict": ["source", "ckpt", "out"],
    "prepare": ["data.raw", "data.size", "data.color"],
    "look": ["file", "out"],
    "export": ["ckpt", "format", "out"],
    "demo": ["ckpt", "port", "device"],
}


def rows(text):
    """The keys that a help lists, in their order, with what is said of each."""
    part = text.partition("\nKeys (key=value)")[2]
    return re.findall(r"^  ([a-z_.0-9]+)=\S*(?: +(\S.*))?$", part, re.M)


def leaves(config, prefix=""):
    for key, value in config.items_ex(resolve=False):
        if isinstance(value, DictConfig) and not value._is_none() and not value._is_missing():
            yield from leaves(value, f"{prefix}{key}.")
        elif key != "_target_":
            yield f"{prefix}{key}"


@pytest.mark.parametrize("command", FIRST)
def test_groups_come_first_and_every_key_has_one_line_that_says_something(run, command, tmp_path):
    text = run(FER, command, "--help", cwd=tmp_path).stdout
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        expected = set(leaves(compose(command)))
    listed = [key for key, _ in rows(text)]
    assert set(listed) == expected and len(listed) == len(expected) >= 3
    assert [key for key, said in rows(text) if len(said) < 5] == []
    assert listed[: len(FIRST[command])] == FIRST[command]
    places = [text.index(part) for part in (f"  fer {command} ", "\nChoices (group=choice):\n", "\nKeys (key=value)")]
    assert places == sorted(places)
    groups = re.findall(r"^  (\w+)=\S+ +\S.*\n      (\w+(?:, \w+)*)$", text, re.M)
    assert groups[0][0] == {"predict": "faces", "demo": "faces"}.get(command, "data")
    for group, choices in groups:
        there = {path.stem for path in (ROOT / "conf" / group).glob("*.yaml")}
        assert choices.split(", ") == sorted(there - ({"module"} if command != "train" else set()))


def test_a_choice_of_ones_own_is_listed_with_its_keys_and_its_words(run, tmp_path):
    (tmp_path / "my/loss").mkdir(parents=True)
    (tmp_path / "my/loss/mine.yaml").write_text(
        "# How far apart.\n_target_: torch.nn.MultiMarginLoss\nmargin: 0.5    # between classes\n"
        "reduction: 'a # b'  # with $5\n                    # and more\nweight: null\n"
    )
    text = run(FER, "train", "--config-dir=my", "loss=mine", "augment=strong", "--help", cwd=tmp_path).stdout
    assert "\n  loss=mine " in text and "\n      cross_entropy, custom, focal, mine, smooth\n" in text
    assert "\nloss=mine: How far apart.\n  loss.margin=0.5                   between classes\n" in text
    assert "\n  loss.reduction=a # b              with $5 and more\n  loss.weight=null\n" in text
    assert "\n  augment.rotate=12                 degrees to either side\n" in text and "_target_" not in text
    # where a class has to be named, its key is there
    assert "\n  loss._target_=??? " in run(FER, "train", "loss=custom", "--help", cwd=tmp_path).stdout


def test_a_narrow_terminal_gets_its_lines_broken_below_the_words(tmp_path):
    mine, theirs = pty.openpty()
    command = [sys.executable, "-m", "fer", "demo", "--help"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=theirs, env={**os.environ, "COLUMNS": "90"}) as process:
        os.close(theirs)
        text = b""
        # Linux says by an error that the other end is closed
        try:
            while part := os.read(mine, 4096):
                text += part
        except OSError:
            pass
    os.close(mine)
    lines = text.decode().replace("\r", "").splitlines()
    keys = lines[next(n for n, line in enumerate(lines) if line.startswith("Keys (key=value)")) + 1 : -1]
    assert process.returncode == 0 and max(map(len, keys)) <= 90
    place = next(n for n, line in enumerate(lines) if line.startswith("  trust=[]"))
    assert lines[place + 1].startswith(" " * 36) and lines[place + 1][36] != " "


def test_the_commands_first_words_are_of_a_first_try(run):
    text = run(FER, "--help").stdout
    assert text.index("fer predict source=photo.jpg ckpt=fer2013_vgg9") < text.index("\nCommands:\n")
    assert "\n  out=null " in run(FER, "compare", "--help").stdout
