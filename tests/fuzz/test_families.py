"""Each family of files: as they should be they are accepted, and changed ones give one line or the right value."""

import pytest

from tests.fuzz.families import FAMILIES
from tests.fuzz.family import KINDS, fuzz_seed, judge, run

#: Changed files of each family: in `make test`, and in `make test-all` 10,000 in all.
FEW, MANY = 30, 520


@pytest.fixture(autouse=True)
def quiet(monkeypatch, capfd):
    """Leave out of a passing test's output what libraries say of damaged files."""
    yield
    capfd.readouterr()


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_whole_files_are_accepted(family, tmp_path):
    for case in family.whole():
        assert judge(family, case, tmp_path) == ("accepted", "")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("examples", [FEW, pytest.param(MANY, marks=pytest.mark.slow)])
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_changed_files_give_one_line_or_the_right_value(family, examples):
    number = fuzz_seed()

    def see(case, kind, text):
        assert kind in KINDS[:2], f"{kind}: {case.how}, {case.note}: {text} (FUZZ_SEED={number})"

    run(family, examples, number, see)
