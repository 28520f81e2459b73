"""LitData shards: the rows, labels and training of the HDF5 file that the same raw data give."""

import numpy as np
import pytest
import torch
from conftest import train_config
from test_module import assert_same_weights, kept
from test_prepare import counts, data, fer2013_csv

from fer.data.preparation.prepare import prepare
from fer.data.storage import shards as stream
from fer.data.storage.hdf5 import read_column, read_info
from fer.data.storage.lazy_images import DiskImages
from fer.data.storage.shards import StreamImages, read_images
from fer.errors import InputError
from fer.training.run import train

SPLITS = {"train": 301, "val": 35, "test": 14}


@pytest.fixture
def both(tmp_path, monkeypatch):
    """The same csv as HDF5 and as shards of about 10 faces, in blocks of 3 faces of 20 x 20."""
    monkeypatch.setattr("fer.data.storage.lazy_images._BLOCK_BYTES", 1300)
    monkeypatch.setattr("fer.data.storage.lazy_images.BUFFER_BLOCKS", 4)
    monkeypatch.setattr("fer.data.loading.samplers.BUFFER_BLOCKS", 4)
    monkeypatch.setattr(stream, "_SHARD_BYTES", 4000)
    raw = fer2013_csv(tmp_path / "fer2013.csv", [43] * 7, [5] * 7, [2] * 7, side=20)
    config = data("fer2013", raw=raw, size=20)
    file, folder = tmp_path / "faces.h5", tmp_path / "faces.litdata"
    prepare(config, file)
    prepare(config, folder, "litdata")
    return file, folder


def test_shards_hold_the_same_rows_and_labels(both):
    file, folder = both
    assert {path.name for path in folder.iterdir()} == {"rows.h5", *SPLITS}
    assert len(list((folder / "train").glob("*.bin"))) > 10
    first, second = read_info(file), read_info(folder)
    assert first.counts == second.counts and first.made_by == second.made_by and first.duplicates == second.duplicates
    for split, n in SPLITS.items():
        assert sum(counts(folder, split)) == n
        for column in ("label", "source", "path", "row", "face"):
            assert np.array_equal(read_column(file, split, column), read_column(folder, split, column))
        assert np.array_equal(read_column(file, split, "image"), read_images(folder, split))
    rows = torch.tensor([300, 0, 17, 17, 3, 30, 31, 299])
    assert torch.equal(StreamImages(folder, "train")[rows], DiskImages(file, "train")[rows])


def test_colours_too(tmp_path):
    raw = fer2013_csv(tmp_path / "fer2013.csv", [3] * 7, [2] * 7, [1] * 7)
    config = data("fer2013", raw=raw, size=8, color="rgb")
    prepare(config, tmp_path / "a.h5")
    prepare(config, tmp_path / "b", "litdata")
    assert np.array_equal(read_column(tmp_path / "a.h5", "train", "image"), read_images(tmp_path / "b", "train"))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("keep", ["disk", "memory"])
def test_batches_are_those_of_the_file(both, keep, workers):
    first, second = (kept(file, keep, num_workers=workers) for file in both)
    assert len(first) == len(second) == 10 + 1
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.image, b.image) and torch.equal(a.label, b.label) and torch.equal(a.rows, b.rows)


def test_shards_train_the_same_weights(both, tmp_path):
    for file in both:
        train(train_config(file, **{"data.keep": "disk", "trainer.max_epochs": 1}), tmp_path / f"run{file.suffix}")
    assert_same_weights(tmp_path / "run.h5", tmp_path / "run.litdata")


def test_shards_elsewhere_are_fetched(both, tmp_path, monkeypatch):
    file, _ = both
    # what the environment variable LITDATA_CACHE_DIR sets when LitData is imported
    monkeypatch.setattr("litdata.utilities.dataset_utilities._LITDATA_CACHE_DIR", str(tmp_path / "cache"))
    store, folder = tmp_path / "store", tmp_path / "elsewhere.litdata"
    # "local:" is LitData's object store that is a folder: it fetches shards into its cache as from any other
    prepare(data("fer2013", raw=tmp_path / "fer2013.csv", size=20), folder, "litdata", shards=f"local:{store}/")
    store.mkdir()
    for split in SPLITS:
        (folder / split).rename(store / split)
    first, second = (kept(path, "disk") for path in (file, folder))
    assert all(torch.equal(a.image, b.image) for a, b in zip(first, second, strict=True))
    assert len(list((tmp_path / "cache").rglob("*.bin"))) == len(list((store / "train").glob("*.bin"))) + len(
        list((store / "val").glob("*.bin"))
    )


def test_what_shards_need_is_one_line(tmp_path, monkeypatch):
    config = data("fer2013", raw=fer2013_csv(tmp_path / "a.csv", [3] * 7, [2] * 7, [1] * 7), size=8)
    with pytest.raises(InputError, match="shards=s3://b/a needs format=litdata"):
        prepare(config, tmp_path / "a.h5", shards="s3://b/a")
    monkeypatch.setitem(__import__("sys").modules, "litdata", None)
    with pytest.raises(InputError, match=r"shards need LitData: pip install"):
        prepare(config, tmp_path / "a", "litdata")
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv"}
