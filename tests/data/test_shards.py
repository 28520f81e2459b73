"""LitData shards: the rows, labels and training of the HDF5 file that the same raw data give, and nothing run or
fetched that a file names."""

import json
import multiprocessing
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from litdata.streaming import Cache
from litdata.types import Graph

from fer.data.loading.datamodule import FaceDataset
from fer.data.preparation.prepare import prepare
from fer.data.storage import shards as stream
from fer.data.storage.hdf5 import read_column, read_info
from fer.data.storage.lazy_images import DiskImages
from fer.data.storage.shards import StreamImages, read_images
from fer.deployment.export import quantize
from fer.errors import InputError
from fer.evaluation.run import evaluate
from fer.training.run import train
from tests.conftest import train_config
from tests.data.test_datamodule import assert_same_weights, kept
from tests.data.test_prepare import counts, data, fer2013_csv

SPLITS = {"train": 301, "val": 35, "test": 14}


@pytest.fixture(autouse=True)
def small():
    """Blocks of 3 faces of 20 x 20, and shards of about 10 faces."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fer.data.storage.lazy_images._BLOCK_BYTES", 1300)
        patch.setattr("fer.data.storage.lazy_images.BUFFER_BLOCKS", 4)
        patch.setattr("fer.data.loading.samplers.BUFFER_BLOCKS", 4)
        patch.setattr(stream, "_SHARD_BYTES", 4000)
        yield patch


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The same csv as HDF5 and as shards; not to be changed."""
    root = tmp_path_factory.mktemp("shards")
    raw = fer2013_csv(root / "fer2013.csv", [43] * 7, [5] * 7, [2] * 7, side=20)
    config = data("fer2013", raw=raw, size=20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fer.data.storage.lazy_images._BLOCK_BYTES", 1300)
        patch.setattr(stream, "_SHARD_BYTES", 4000)
        prepare(config, root / "faces.h5")
        prepare(config, root / "faces.litdata", "litdata")
    return root / "faces.h5", root / "faces.litdata"


@pytest.fixture(scope="module")
def trained(made, tmp_path_factory):
    """The folders of a run on each of the two."""
    root = tmp_path_factory.mktemp("runs")
    for file in made:
        train(train_config(file, **{"data.keep": "disk", "trainer.max_epochs": 1}), root / file.suffix[1:])
    return root / "h5", root / "litdata"


@pytest.fixture
def folder(made, tmp_path):
    """A folder of shards to be changed."""
    return shutil.copytree(made[1], tmp_path / "faces.litdata")


def say(folder, place):
    """Have rows.h5 say that the shards lie elsewhere."""
    with h5py.File(folder / "rows.h5", "a") as rows:
        rows.attrs["shards"] = str(place)


def move(folder, store):
    """Move the shards away."""
    store.mkdir()
    for split in SPLITS:
        (folder / split).rename(store / split)
    return store


def write_items(place, items):
    """Replace a split's shards by LitData's own of any items."""
    shutil.rmtree(place)
    cache = Cache(str(place), chunk_bytes=1 << 20)
    for number, item in enumerate(items):
        cache[number] = item
    cache.done()
    cache.merge()


def edit(place, change):
    """Change a split's index.json, given as what it says."""
    index = json.loads((place / "index.json").read_text())
    change(index)
    (place / "index.json").write_text(json.dumps(index))


class Runs:
    """Makes a file when it is unpickled."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_shards_hold_the_same_rows_and_labels(made):
    file, folder = made
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
def test_batches_are_those_of_the_file(made, keep, workers):
    first, second = (kept(file, keep, num_workers=workers) for file in made)
    assert len(first) == len(second) == 10 + 1
    for a, b in zip(first, second, strict=True):
        assert torch.equal(a.image, b.image) and torch.equal(a.label, b.label) and torch.equal(a.rows, b.rows)


def test_shards_train_the_same_weights(trained):
    assert_same_weights(*trained)


@pytest.mark.parametrize("address", ["local:{}/", "{}"])
def test_shards_elsewhere_are_read_where_the_user_says(made, folder, tmp_path, monkeypatch, address):
    monkeypatch.setenv("LITDATA_CACHE_DIR", str(tmp_path / "cache"))
    store = move(folder, tmp_path / "store")
    # "local:" is LitData's object store that is a folder: it fetches shards into its cache as from any other
    first, second = kept(made[0], "disk"), kept(folder, "disk", shards=address.format(store), num_workers=2)
    assert len(first) == len(second) == 10 + 1
    assert all(torch.equal(a.image, b.image) for a, b in zip(first, second, strict=True))
    fetched = sorted(file.name for file in (tmp_path / "cache").rglob("*.bin"))
    held = [*(store / "train").glob("*.bin"), *(store / "val").glob("*.bin")]
    assert fetched == (sorted(file.name for file in held) if ":" in address else [])


def test_shards_in_another_place_of_their_folder_need_no_word(made, folder):
    move(folder, folder / "shards")
    say(folder, "shards")
    assert np.array_equal(read_images(folder, "val"), read_images(made[1], "val"))


@pytest.mark.parametrize("place", ["{}", "../store", "local:{}", "link"])
def test_what_a_file_says_of_another_place_is_not_followed(folder, tmp_path, monkeypatch, place):
    monkeypatch.setenv("LITDATA_CACHE_DIR", str(tmp_path / "cache"))
    store = move(folder, tmp_path / "store")
    if place == "link":
        (folder / "train").symlink_to(store / "train")
        elsewhere = store
    else:
        elsewhere = place.format(store)
        say(folder, elsewhere)
    with pytest.raises(InputError) as caught:
        read_images(folder, "train")
    assert str(caught.value) == (
        f"{folder}: says that its shards lie elsewhere; if you trust that place, give data.shards='{elsewhere}' "
        "(to evaluate.py and export.py with data=NAME)"
    )
    assert not (tmp_path / "cache").exists()


def test_on_the_command_line_the_place_is_data_shards(folder, tmp_path, run):
    store = move(folder, tmp_path / "store")
    say(folder, store)
    arguments = [
        "train.py", "data=fer2013", f"data.file={folder}", "data.size=20", "augment.crop=16", "model=vgg_small",
        "trainer=cpu", "trainer.max_epochs=1", "trainer.enable_progress_bar=false", f"hydra.run.dir={tmp_path / 'run'}",
    ]  # fmt: skip
    error = run(*arguments, code=2).stderr
    assert error.count("\n") == 1 and f"give data.shards='{store}'" in error
    run(*arguments, f"data.shards={store}")


def test_a_checkpoint_has_no_say_in_where_shards_lie(made, trained, folder, tmp_path):
    store = move(folder, tmp_path / "store")
    say(folder, store)
    checkpoint = torch.load(trained[1] / "checkpoints/best.ckpt", weights_only=True)
    checkpoint["hyper_parameters"]["data"] |= {"file": str(folder), "shards": str(store)}
    torch.save(checkpoint, tmp_path / "best.ckpt")
    keys = {"ckpt": str(tmp_path / "best.ckpt"), "split": "test", "ten_crop": False, "device": "cpu"}
    with pytest.raises(InputError, match=r"give data\.shards="):
        evaluate(keys | {"out": str(tmp_path / "a")}, None)
    config = {"name": "fer2013", "file": str(folder), "shards": str(store)}
    given = evaluate(keys | {"out": str(tmp_path / "b")}, config)
    assert given == evaluate(keys | {"out": str(tmp_path / "c")}, {"name": "fer2013", "file": str(made[0])})


@pytest.mark.parametrize("where", ["folder", "address"])
@pytest.mark.parametrize("item", [lambda item: item, lambda item: Graph(data=item)], ids=["pickle", "graph"])
def test_no_pickle_in_shards_is_read(folder, tmp_path, monkeypatch, where, item):
    monkeypatch.setenv("LITDATA_CACHE_DIR", str(tmp_path / "cache"))
    write_items(folder / "val", [item(Runs(tmp_path / "ran"))] * 12)
    options = {}
    if where == "address":
        options = {"shards": f"local:{move(folder, tmp_path / 'store')}"}
    with pytest.raises(InputError, match=r"val/index\.json: not of shards that prepare\.py wrote"):
        read_images(folder, "val", **options)
    assert not (tmp_path / "ran").exists() and list(tmp_path.rglob("cache/**/*")) == []


def tree(index):
    # LitData imports the module that the tree of an item names
    context = {"default_factory_module": "planted", "default_factory_name": "dict", "dict_context": []}
    spec = {"type": "collections.defaultdict", "context": context, "children_spec": []}
    index["config"]["data_spec"] = json.dumps([1, spec])


@pytest.mark.parametrize(
    "change",
    [
        tree,
        lambda index: index["chunks"][0].update(filename="../../planted.bin"),
        lambda index: index["chunks"][0].update(filename="/planted.bin"),
        lambda index: index["chunks"][0].update(chunk_size="1"),
        lambda index: index["chunks"][0].update(chunk_bytes=-1),
        lambda index: index["config"].update(format="mds"),
        lambda index: index["config"].update(compression="zstd"),
        lambda index: index["config"].update(data_format=["numpy", "pickle"]),
        lambda index: index["config"].pop("data_format"),
        lambda index: index.pop("chunks"),
        lambda index: index.update(chunks=None),
    ],
)
def test_an_index_of_another_form_is_refused_before_litdata_sees_it(folder, tmp_path, monkeypatch, change):
    monkeypatch.setenv("LITDATA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "planted.py").write_text(f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n")
    shutil.copy(folder / "val/chunk-0-0.bin", tmp_path / "planted.bin")
    edit(folder / "val", change)
    message = r"val/index\.json: not of shards that prepare\.py wrote, so it is not read; prepare the data again"
    with pytest.raises(InputError, match=message):
        FaceDataset(folder, "val", disk=True).images[torch.tensor([0])]
    with pytest.raises(InputError, match=message):
        FaceDataset(folder, "val", disk=True, shards=f"local:{folder}")
    assert not (tmp_path / "ran").exists() and list(tmp_path.rglob("cache/**/*")) == []


@pytest.mark.parametrize("content", [b"", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_what_is_no_index_is_refused(folder, content):
    (folder / "val/index.json").write_bytes(content)
    with pytest.raises(InputError, match=r"val/index\.json: not of shards that prepare\.py wrote"):
        read_images(folder, "val")


def test_a_shard_that_was_cut_short_is_refused_without_waiting_for_its_rest(folder):
    shard = folder / "val/chunk-0-1.bin"
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    message = rf"chunk-0-1\.bin: {len(content) - 1:,} of {len(content):,} bytes; copy the shards again"
    with pytest.raises(InputError, match=message):
        read_images(folder, "val")


def test_an_index_without_a_key_that_says_nothing_is_read(made, folder):
    edit(folder / "val", lambda index: index["config"].pop("compression"))
    assert np.array_equal(read_images(folder, "val"), read_images(made[1], "val"))


def test_blocks_are_what_litdata_itself_reads(made):
    from litdata import StreamingDataset

    blocks = StreamingDataset(str(made[1] / "train"), shuffle=False)
    assert len(blocks) == 101
    assert np.array_equal(np.concatenate([blocks[n] for n in range(101)]), read_images(made[1], "train"))


@pytest.mark.timeout(60)
def test_processes_that_fetch_the_same_shards_at_once_never_wait_for_each_other(made, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("LITDATA_CACHE_DIR", str(tmp_path / "cache"))
    store = move(folder, tmp_path / "store")
    expected = read_images(made[1], "train")
    with multiprocessing.get_context("fork").Pool(6) as pool:
        for _ in range(5):
            got = pool.starmap_async(read_images, [(folder, "train", f"local:{store}")] * 6).get(timeout=20)
            assert all(np.array_equal(each, expected) for each in got)
            shutil.rmtree(tmp_path / "cache")


def test_a_cache_on_a_full_disk_makes_room_for_what_is_fetched(made, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("LITDATA_CACHE_DIR", str(tmp_path / "cache"))
    store = move(folder, tmp_path / "store")
    shard = (store / "train/chunk-0-0.bin").stat().st_size
    held = []

    def usage(place):
        taken = sum(path.stat().st_size for path in Path(place).rglob("*.bin"))
        held.append(taken // shard)
        return 40 * shard, 36 * shard + taken, 4 * shard - taken

    monkeypatch.setattr(shutil, "disk_usage", usage)
    images = StreamImages(folder, "train", f"local:{store}")
    for _ in range(2):
        assert np.array_equal(images[torch.arange(301)][:, 0], read_column(made[0], "train", "image"))
        images._blocks.clear()
    assert max(held) == 3 and len(held) > 40


@pytest.mark.parametrize("rows", [[1, 2], 1.5, "x"])
def test_a_number_of_rows_that_is_none_is_refused(folder, rows):
    with h5py.File(folder / "rows.h5", "a") as file:
        file.attrs["block_rows"] = rows
    with pytest.raises(InputError, match="not the rows of a folder of shards"):
        read_images(folder, "val")


@pytest.mark.parametrize("name", ["index.json", "chunk-0-1.bin"])
def test_a_file_that_is_missing_or_a_link_is_named(folder, tmp_path, name):
    file = folder / "val" / name
    shutil.move(file, tmp_path / name)
    for _ in range(2):
        with pytest.raises(InputError, match=rf"val/{name}: no such file, or a link; copy the shards again"):
            read_images(folder, "val")
        file.unlink(missing_ok=True)
        file.symlink_to(tmp_path / name)


def test_shards_that_do_not_hold_the_images_are_refused(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("LITDATA_CACHE_DIR", str(tmp_path / "cache"))
    edit(folder / "test", lambda index: index["chunks"].pop())
    with pytest.raises(InputError, match=r"test/index\.json: of \d blocks of images, but rows\.h5 is of 5; copy the"):
        read_images(folder, "test")
    images = [np.zeros((3, 20, 20), np.uint8)] * 11
    for last in (np.zeros((3, 20, 20), np.uint8), np.zeros((2, 20, 21), np.uint8), np.zeros((2, 20, 20), np.int8)):
        write_items(folder / "val", [*images, last])
        with pytest.raises(InputError, match=r"val: block 11 is not the images that .*rows\.h5 tells of"):
            read_images(folder, "val")
    write_items(folder / "val", [*images, np.zeros((2, 20, 20), np.uint8)])
    assert not read_images(folder, "val").any()
    shard = folder / "val/chunk-0-0.bin"
    shard.write_bytes(b"\xff" * shard.stat().st_size)
    with pytest.raises(InputError, match="val: block 0 is not the images that"):
        read_images(folder, "val")
    with pytest.raises(InputError, match=r"^local:/nowhere/val/index\.json: could not be fetched: "):
        read_images(folder, "val", "local:/nowhere")
    with h5py.File(folder / "rows.h5", "a") as rows:
        rows.attrs["block_rows"] = 0
    with pytest.raises(InputError, match=r"rows\.h5: not the rows of a folder of shards"):
        read_images(folder, "val")


def test_what_shards_need_is_one_line(made, tmp_path, monkeypatch):
    config = data("fer2013", raw=fer2013_csv(tmp_path / "a.csv", [3] * 7, [2] * 7, [1] * 7), size=8)
    with pytest.raises(InputError, match="shards=s3://b/a needs format=litdata"):
        prepare(config, tmp_path / "a.h5", shards="s3://b/a")
    with pytest.raises(InputError, match=r"data\.shards=s3://b/a: .*faces\.h5 is no folder of shards; leave it out"):
        FaceDataset(made[0], "val", shards="s3://b/a")
    with pytest.raises(InputError, match=r"faces\.litdata: shards are not calibrated on; prepare the same data with"):
        quantize(tmp_path / "a.onnx", tmp_path / "b.onnx", made[1])
    monkeypatch.setitem(__import__("sys").modules, "litdata", None)
    with pytest.raises(InputError, match=r'shards need LitData: pip install "\.\[stream\]" in the checkout'):
        prepare(config, tmp_path / "a", "litdata")
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv"}
