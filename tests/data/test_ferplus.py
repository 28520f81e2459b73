"""FER+ votes: read, aligned with FER2013's rows by place, stored, and trained on."""

import gzip
import json
import lzma
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir

from fer.config.checks import check_data
from fer.data.loading.datamodule import FaceDataModule
from fer.data.preparation.prepare import prepare
from fer.data.readers.fer2013 import fer2013_source, listed_rows
from fer.data.readers.ferplus import align_votes, apply_votes, read_votes
from fer.data.source import FaceFormat, PhotoLimits
from fer.data.storage.hdf5 import read_column
from fer.errors import InputError
from fer.labels import CLASSES
from fer.training.run import assemble, train
from tests.conftest import train_config
from tests.data.test_fer2013 import write

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared/data"
HEADER = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF\n"
VOTES = HEADER + (
    "Training,fer0000000.png,0,0,0,1,7,2,0,0,0,0\n"
    "PublicTest,fer0000001.png,10,0,0,0,0,0,0,0,0,0\n"
    "PrivateTest,,0,9,0,0,0,0,0,1,0,0\n"
    "Training,fer0000003.png,1,0,0,1,0,2,0,4,2,0\n"
)


def data(raw, out, **changes):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        overrides = {"data": "fer2013", "data.raw": raw, "data.file": out, "data.size": 16} | changes
        return check_data(compose("prepare", [f"{key}={value}" for key, value in overrides.items()]).data)


def csv_of(rows):
    """Return FER2013's csv of flat 16 x 16 faces; rows are (label, Usage)."""
    faces = (" ".join([str(10 + number)] * 256) for number in range(len(rows)))
    lines = (f"{label},{face},{usage}\n" for (label, usage), face in zip(rows, faces, strict=True))
    return ("emotion,pixels,Usage\n" + "".join(lines)).encode()


def votes_of(rows):
    """Return a FER+ file in which row i has 9 votes for its label and one for the column that i counts up to."""
    columns = [CLASSES.index(name) for name in ("Neutral", "Happy", "Surprise", "Sad", "Angry", "Disgust", "Fear")]
    lines = []
    for number, (label, usage) in enumerate(rows):
        votes = [0] * 10
        votes[columns.index(label)] += 9
        votes[number % 10] += 1
        lines.append(f"{usage},fer{number:07d}.png,{','.join(map(str, votes))}\n")
    return (HEADER + "".join(lines)).encode()


ROWS = [(row % 7, "Training") for row in range(20)] + [(row % 7, "PublicTest") for row in range(8)]


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
def test_the_file_is_read_packed_or_plain(tmp_path, pack):
    name = "fer2013new.csv" + {bytes: "", gzip.compress: ".gz", lzma.compress: ".xz"}[pack]
    splits, votes = read_votes(write(tmp_path / name, pack(VOTES.encode())))
    assert splits == ["train", "val", "test", "train"]
    assert votes.dtype == np.uint8 and votes.shape == (4, 10)
    assert votes[3].tolist() == [1, 0, 0, 1, 0, 2, 0, 4, 2, 0]


@pytest.mark.parametrize(
    "text",
    [
        b"\xef\xbb\xbf" + VOTES.encode(),
        VOTES.encode() + b"\n  \n",
        VOTES.replace("7,2", "7.0,2.0").encode(),
        VOTES.replace("\n", "\r\n").encode("utf-16"),
        VOTES.replace("\n", "\r").encode(),
        VOTES.replace(",", ";").encode(),
        VOTES.replace(",", "\t").encode(),
        VOTES.replace("PrivateTest,,", 'PrivateTest,"a,b",').encode(),
        VOTES.replace("PrivateTest,,", "PrivateTest,;\t,").encode(),
    ],
)
def test_what_programs_make_of_the_file_is_read(tmp_path, text):
    splits, votes = read_votes(write(tmp_path / "fer2013new.csv", text))
    assert splits == ["train", "val", "test", "train"]
    assert votes.tolist() == [
        [0, 0, 0, 1, 7, 2, 0, 0, 0, 0], [10, 0, 0, 0, 0, 0, 0, 0, 0, 0], [0, 9, 0, 0, 0, 0, 0, 1, 0, 0],
        [1, 0, 0, 1, 0, 2, 0, 4, 2, 0],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not FER\\+'s fer2013new.csv"),
        (VOTES.replace("anger,disgust", "disgust,anger"), "not FER\\+'s fer2013new.csv"),
        (VOTES.replace("PublicTest", "Extra"), "line 3 is no Usage, name and 10 numbers"),
        (VOTES.replace("0,0,1,7,2", "0,0,1,7"), "line 2 is no Usage"),
        (VOTES.replace("PrivateTest,,", 'PrivateTest,",'), "line 4 is no Usage, .*: correct it, or get a whole copy"),
        (VOTES.replace("7,2", "7,x"), "line 2 is no Usage"),
        (VOTES.replace("7,2", "700,2"), "line 2 is no Usage"),
        (VOTES.replace("7,2", "7.5,2"), "line 2 is no Usage"),
        (VOTES.replace("7,2", "9" * 5000 + ",2"), "line 2 is no Usage"),
        (VOTES.replace("fer0000001.png", "a" * 200_000), "line 3 is no Usage"),
    ],
)
def test_another_file_is_refused_in_one_line(tmp_path, text, message):
    with pytest.raises(InputError, match=message) as caught:
        read_votes(write(tmp_path / "a.csv", text.encode()))
    assert str(tmp_path / "a.csv") in str(caught.value) and "\n" not in str(caught.value)


def test_votes_become_probabilities_of_the_classes():
    votes = np.array(
        [
            [0, 0, 0, 1, 7, 2, 0, 0, 0, 0],
            [1, 0, 0, 1, 0, 2, 0, 4, 2, 0],
            [0, 0, 0, 0, 0, 0, 0, 4, 3, 3],
            [2, 0, 0, 0, 0, 0, 3, 0, 3, 2],
            [2, 0, 0, 0, 0, 0, 2, 0, 3, 3],
        ],
        np.uint8,
    )
    kept, target = apply_votes("soft", votes, CLASSES)
    assert kept.tolist() == [True, True, False, True, True]
    # Angry, Disgust, Fear, Happy, Sad, Surprise, Neutral
    assert target.dtype == np.float32
    np.testing.assert_allclose(target[0], [0.7, 0.2, 0, 0, 0.1, 0, 0])
    np.testing.assert_allclose(target[1], [0, 0.5, 0, 0, 0.25, 0, 0.25])
    np.testing.assert_allclose(target[3], [0, 0, 0.6, 0, 0, 0, 0.4], rtol=1e-6)
    # half of the votes are not more than half of them
    kept, target = apply_votes("clean", votes, CLASSES)
    assert kept.tolist() == [True, True, False, True, False] and target is None


def test_votes_stay_beside_their_rows_when_rows_are_skipped(tmp_path):
    text = csv_of(ROWS)
    # the second row's pixels and the fourth row's label can't be read
    lines = text.splitlines(keepends=True)
    lines[2] = lines[2].replace(b"11 11", b"11 xx", 1)
    lines[4] = lines[4].replace(b"3,", b"9,", 1)
    raw = write(tmp_path / "fer2013.csv", b"".join(lines))
    votes = write(tmp_path / "fer2013new.csv", votes_of(ROWS))
    out = tmp_path / "out.h5"
    summary = prepare(data(raw, out, **{"data.votes": votes}), out)
    assert sum(summary["skipped"].values()) == 2
    table = read_votes(votes)[1]
    for split, first in (("train", 0), ("val", 20)):
        pixels = read_column(out, split, "image")[:, 0, 0]
        stored = read_column(out, split, "votes")
        assert stored.dtype == np.uint8 and stored.tolist() == table[pixels - 10].tolist()
        assert pixels[0] == 10 + first
    assert len(read_column(out, "train", "votes")) == 18
    assert any("FER+ votes for 28 rows" in note and "100%" in note for note in summary["notes"])


def test_without_votes_the_file_is_what_it_was(tmp_path):
    raw = write(tmp_path / "fer2013.csv", csv_of(ROWS))
    config = data(raw, tmp_path / "out.h5")
    assert config["votes"] is None and config["keep"] == "auto"
    prepare(config, tmp_path / "out.h5")
    with h5py.File(tmp_path / "out.h5") as file:
        assert set(file["train"]) == {"image", "label", "source", "path", "face", "row", "annotation", "box"}
        assert not {"votes", "keep"} & set(json.loads(file.attrs["made_by"]))


def aligned(tmp_path, votes, raw=None):
    raw = write(tmp_path / "fer2013.csv", csv_of(ROWS) if raw is None else raw)
    source = fer2013_source(raw, FaceFormat(size=16), PhotoLimits())
    return align_votes(write(tmp_path / "fer2013new.csv", votes), raw, listed_rows(source))


def test_a_csv_that_ends_earlier_keeps_its_place(tmp_path):
    more = [*ROWS, *((row % 7, "PrivateTest") for row in range(9))]
    votes, note = aligned(tmp_path, votes_of(more))
    assert len(votes) == 28
    assert "; 9 more rows of fer2013new.csv are of a Usage that fer2013.csv does not have" in note


@pytest.mark.parametrize(
    ("votes", "raw", "message"),
    [
        (votes_of(ROWS[:-1]), None, "27 rows, but .* has 28"),
        # a row of Training was taken out of the csv, so that all after it have moved
        (votes_of(ROWS), csv_of(ROWS[1:]), "row 19 is of the train split, but of val"),
        # and at the end of a csv of Training alone no Usage tells of it
        (votes_of(ROWS), csv_of(ROWS[1:20]), "28 rows, but .* has 19"),
        (votes_of(ROWS[20:] + ROWS[:20]), None, "row 0 is of the val split, but of train"),
        (votes_of(ROWS), csv_of(ROWS[19::-1] + ROWS[20:]), "only .*% of the rows"),
    ],
)
def test_rows_that_do_not_belong_together_are_refused_in_one_line(tmp_path, votes, raw, message):
    with pytest.raises(InputError, match=message) as caught:
        aligned(tmp_path, votes, raw)
    assert "\n" not in str(caught.value) and "fer2013new.csv" in str(caught.value)


def test_where_the_order_is_not_known_votes_are_refused(tmp_path):
    votes = write(tmp_path / "fer2013new.csv", VOTES.encode())
    out = tmp_path / "a.h5"
    raw = write(tmp_path / "train.csv", b"emotion,pixels\n0,1 2 3 4\n")
    with pytest.raises(InputError, match="train.csv: it has no Usage column"):
        prepare(data(raw, out, **{"data.votes": votes}), out)
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["Training_pixel"], file["Training_label"] = np.zeros((3, 64), np.uint8), np.zeros(3, int)
    with pytest.raises(InputError, match=r"data\.votes needs data\.raw to be FER2013's csv"):
        prepare(data(tmp_path / "data.h5", out, **{"data.votes": votes}), out)
    with pytest.raises(InputError, match=r"data\.votes=.*no such file"):
        prepare(data(write(tmp_path / "a.csv", csv_of(ROWS)), out, **{"data.votes": tmp_path / "none.csv"}), out)
    with pytest.raises(InputError, match="format=csv has no place"):
        prepare(data(tmp_path / "a.csv", out, **{"data.votes": votes}), tmp_path / "b.csv", "csv")
    assert not out.exists()


@pytest.fixture
def voted(tmp_path):
    """A prepared file of 20 train and 8 val rows with votes; train rows 3 and 8 have them for unknown and no face."""
    lines = votes_of(ROWS).decode().splitlines(keepends=True)
    for row in (3, 8):
        lines[1 + row] = f"Training,,0,0,0,0,0,0,0,0,{row},{10 - row}\n"
    raw, out = write(tmp_path / "fer2013.csv", csv_of(ROWS)), tmp_path / "voted.h5"
    votes = write(tmp_path / "fer2013new.csv", "".join(lines).encode())
    prepare(data(raw, out, **{"data.votes": votes}), out)
    return out


@pytest.mark.parametrize("keep", ["memory", "device", "disk"])
@pytest.mark.parametrize("kind", ["soft", "clean"])
def test_batches_hold_the_targets_of_their_rows(voted, keep, kind):
    module = FaceDataModule(voted, 8, keep=keep, votes=kind)
    module.setup("fit")
    batches = list(module.train_dataloader())
    index = torch.cat([batch.rows for batch in batches])
    assert sorted(index.tolist()) == [row for row in range(20) if row not in (3, 8)]
    for batch in batches:
        assert batch.image[:, 0, 0, 0].tolist() == (batch.rows + 10).tolist()
        assert batch.label.tolist() == (batch.rows % 7).tolist()
        if kind == "clean":
            assert batch.target is None
            continue
        assert batch.target.sum(1).tolist() == pytest.approx([1] * len(batch.rows))
        # row 1's label is Disgust, and its tenth vote is for happiness
        for target in batch.target[batch.rows == 1]:
            assert target.tolist() == pytest.approx([0, 0.9, 0, 0.1, 0, 0, 0])
    (val,) = module.val_dataloader()
    assert val.target is None and val.rows.tolist() == list(range(8))


def test_the_loss_is_the_cross_entropy_with_the_votes(voted, tmp_path):
    config = train_config(voted, **{"data.size": 16, "augment.crop": 16, "recipe.votes": "soft", "batch_size": 18})
    _, model, module, _ = assemble(config, tmp_path)
    module.setup("fit")
    (batch,) = module.train_dataloader()
    logits = torch.randn(18, 7, dtype=torch.float64)
    target = batch.target.double()
    by_hand = -(target * (logits - logits.exp().sum(1, keepdim=True).log())).sum(1).mean()
    images, targets = model.recipe.mix(batch.image.float(), batch.target)
    assert torch.equal(targets, batch.target) and len(images) == 18
    assert float(model.loss(logits, target)) == pytest.approx(float(by_hand))


@pytest.mark.parametrize("changes", [{}, {"recipe.mix": 1, "recipe.mixup": 0.2, "loss": "smooth"}])
def test_a_run_trains_on_votes_and_says_how_many_rows(voted, tmp_path, capsys, changes):
    common = {"data.size": 16, "augment.crop": 16, "trainer.max_epochs": 1, "batch_size": 8}
    train(train_config(voted, **common, **changes, **{"recipe.votes": "soft"}), tmp_path / "run")
    assert "recipe.votes=soft: trained on 18 of 20 rows" in capsys.readouterr().out


def test_a_file_without_votes_is_refused(tiny, tmp_path):
    with pytest.raises(InputError, match=r"tiny\.h5: has no FER\+ votes, which recipe\.votes=clean needs") as caught:
        assemble(train_config(tiny, **{"recipe.votes": "clean"}), tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "ferplus").is_dir(), reason="the real FER2013 and FER+ are not here")
def test_the_real_files(tmp_path):
    source = fer2013_source(SHARED / "fer2013/fer2013.csv.xz", FaceFormat(), PhotoLimits())
    votes, note = align_votes(SHARED / "ferplus/fer2013new.csv", "fer2013.csv.xz", listed_rows(source))
    assert note == "FER+ votes for 32,298 rows, by their place; most votes are for the label in 64% of them"
    # 148 Training rows are no faces by FER+, two more have 10 votes for it and a name
    kept, _ = apply_votes("clean", votes[:28709], CLASSES)
    assert (~kept).sum() == 169
    kept, _ = apply_votes("soft", votes[:28709], CLASSES)
    assert (~kept).sum() == 152
