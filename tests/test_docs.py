"""What docs/ promises of itself: everything public is in the reference, every key and group is explained."""

import re

import pytest

import fer
from tests.conftest import ROOT

REFERENCE = "\n".join(path.read_text() for path in (ROOT / "docs/reference").glob("*.md"))
CONFIGS = sorted((ROOT / "conf").rglob("*.yaml"))
#: What only Hydra builds, for the commands themselves.
INTERNAL = {"fer.cli.run_folder.Watch", "fer.cli.sweep.Watch"}


def test_the_reference_has_every_public_name():
    for name in set(fer.__all__) - {"__version__"}:
        assert re.search(rf"^(::: fer\..*[.]{name}|## {name})$", REFERENCE, re.M), name


def test_the_reference_has_every_part_that_a_config_names():
    targets = {target for path in CONFIGS for target in re.findall(r"_target_: (fer[.][\w.]+)", path.read_text())}
    assert len(targets - INTERNAL) > 10
    for target in targets - INTERNAL:
        assert f"::: {target}\n" in REFERENCE, target


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_config_says_what_it_is_and_what_each_key_does(path):
    lines = path.read_text().partition("\nhydra:")[0].splitlines()
    head = lines[1] if lines[0] == "# @package _global_" else lines[0]
    assert re.match(r"# \S.{15,}", head)
    if path.parent.name == "experiment":
        # a choice among keys that are explained where they are
        return
    for line in lines:
        key = re.match(r"\s*(\w+): *[^# ]", line)
        assert not key or key[1] in ("defaults", "_target_") or "# " in line, line


def test_the_map_of_the_configs_has_every_group_and_command():
    text = (ROOT / "conf/README.md").read_text()
    for path in (ROOT / "conf").iterdir():
        assert path.name == "README.md" or f"`{path.name}`" in text, path.name
    for link in re.findall(r"\((\.\./docs/[^)]+)\)", text):
        page, _, anchor = link.removeprefix("../").partition("#")
        headings = re.findall(r"^#+ (.*)$", (ROOT / page).read_text(), re.M)
        assert not anchor or anchor in [re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in headings], link


def test_every_page_is_in_the_navigation_and_in_reach_of_the_readme():
    navigation = (ROOT / "zensical.toml").read_text()
    for path in (ROOT / "docs").rglob("*.md"):
        assert f'"{path.relative_to(ROOT / "docs").as_posix()}"' in navigation, path
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 120
    for link in re.findall(r"\]\(((?!http)[^)#]+)\)", readme):
        assert (ROOT / link).exists(), link
