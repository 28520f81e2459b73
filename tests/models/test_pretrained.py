"""The networks that come with the package: small, fast to load, described, and as good as their cards say."""

import json
import re
from pathlib import Path

import pytest
import skimage.data
from safetensors import safe_open

from fer import Predictor
from fer.data.preparation.prepare import prepare
from fer.evaluation.run import evaluate
from fer.labels import CLASSES
from fer.models.pretrained import FOLDER, names
from tests.conftest import ROOT

FER2013 = ROOT / "../shared/data/fer2013/fer2013.csv.xz"
#: Largest file of each network, in bytes.
LARGEST = {"fer2013_vgg9": 3_000_000}


def data(name, file, **changes):
    common = {
        "name": name, "file": str(file), "size": 48, "color": "grey", "margin": 0.0, "min_bytes": 0, "max_bytes": None,
        "max_pixels": 50_000_000, "seed": 0, "keep": "memory",
    }  # fmt: skip
    return common | changes


def scored(ckpt, config, out, split, ten_crop=True):
    keys = {"ckpt": ckpt, "split": split, "ten_crop": ten_crop, "device": "cpu", "out": str(out), "scales": None}
    evaluate(keys, config)
    return json.loads((out / "report.json").read_text())


def test_each_network_is_small_and_has_a_card():
    assert set(names()) == set(LARGEST)
    for name in names():
        path = FOLDER / f"{name}.safetensors"
        assert path.stat().st_size <= LARGEST[name]
        with safe_open(path, "pt") as file:
            meta = file.metadata()
        assert json.loads(meta["labels"]) == list(CLASSES) and meta["drawn"] == "false"
        # nothing of the machine that it was trained on
        assert not re.search(r'"/|home|tmp', json.dumps(meta))
        card = (FOLDER / f"{name}.md").read_text()
        for part in (
            "## Data",
            "## How it was chosen",
            "## Numbers",
            "## Use it for",
            "## Do not use it for",
            "## Licence",
        ):
            assert part in card, part


@pytest.mark.parametrize("name", LARGEST)
def test_a_smile_on_a_real_photo(name):
    # by eye: scikit-image's astronaut smiles
    (face,) = Predictor.load(name, device="cpu")(skimage.data.astronaut())
    assert face.label == "Happy" and face.confidence > 0.5


@pytest.mark.parametrize("name", LARGEST)
def test_drawn_faces_are_named_better_than_by_chance(name, tmp_path):
    config = data("sample", tmp_path / "sample.h5", raw=str(tmp_path / "raw"), photos=150, val_fraction=0.2)
    prepare(config, Path(config["file"]))
    report = scored(name, config, tmp_path / "out", "test", ten_crop=False)
    # never seen faces like these: far from its score on photos, but the largest class would give less
    largest = max(row["support"] for row in report["plain"]["per_class"]) / report["plain"]["n"]
    assert report["drawn"] and report["plain"]["accuracy_95"][0] > largest


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not FER2013.is_file(), reason="needs ../shared/data/fer2013/fer2013.csv.xz")
@pytest.mark.parametrize("name", LARGEST)
def test_the_card_says_what_public_test_gives(name, tmp_path):
    config = data("fer2013", tmp_path / "fer2013.h5", raw=str(FER2013), votes=None)
    prepare(config, Path(config["file"]))
    report = scored(name, config, tmp_path / "out", "val")
    card = (FOLDER / f"{name}.md").read_text()
    row = re.search(r"\| PublicTest \| 3,589 \| ([\d.]+) \[.*?\] \| ([\d.]+) \[", card)
    for value, crop in zip(row.groups(), ("plain", "ten_crop"), strict=True):
        # half a face of rounding, and what another processor's sums may turn
        assert abs(float(value) - 100 * report[crop]["accuracy"]) < 0.1
