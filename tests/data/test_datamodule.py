"""The data module: where faces are kept, the order of the rows, and what a resumed run sees."""

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from scipy.stats import binom

from fer.data.loading.datamodule import FaceDataModule
from fer.data.loading.dataset import FaceDataset
from fer.data.loading.samplers import BUFFER_BLOCKS, Order, TrainBatches
from fer.data.source import FaceFormat
from fer.data.storage import lazy_images as disk
from fer.data.storage.hdf5 import read_column, read_info
from fer.data.storage.lazy_images import DiskImages, available_memory, cgroup_limits, choose_keep
from fer.errors import InputError
from fer.training.run import assemble, train
from tests.conftest import train_config, write_tiny


def weights(folder):
    return torch.load(folder / "checkpoints/last.ckpt", map_location="cpu", weights_only=True)["state_dict"]


def assert_same_weights(first, second):
    a, b = weights(first), weights(second)
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def rows_of(order, batch_size=8, seed=0, epoch=0, rank=0, ranks=1, start=0):
    """Return the rows of an epoch's steps."""
    batches = TrainBatches(len(order), batch_size, seed, rank, ranks, order=order)
    batches.set_epoch(epoch)
    batches.start = start
    return [rows for rows, _ in batches]


def kept(tiny, keep, **changes):
    """Return the batches of the first training epoch, then those of val."""
    data = FaceDataModule(tiny, 32, keep=keep, **changes)
    data.setup("fit")
    return [*data.train_dataloader(), *data.val_dataloader()]


@pytest.fixture
def small_blocks(monkeypatch):
    """Blocks of 3 rows of 20 x 20 faces and buffers of 4 of them, so that a tiny file has several."""
    monkeypatch.setattr("fer.data.storage.lazy_images._BLOCK_BYTES", 1300)
    monkeypatch.setattr("fer.data.storage.lazy_images.BUFFER_BLOCKS", 4)
    monkeypatch.setattr("fer.data.loading.samplers.BUFFER_BLOCKS", 4)


def test_device_and_memory_train_the_same_weights(tiny, tmp_path):
    for keep in ("memory", "device"):
        train(train_config(tiny, **{"data.keep": keep, "recipe.sampler": "balanced"}), tmp_path / keep)
    assert_same_weights(tmp_path / "memory", tmp_path / "device")


def test_what_is_kept_on_the_device_is_there_before_any_step(tiny):
    # the meta device has no pixels, so only indexing that happens there can give a batch of it
    dataset = FaceDataset(tiny, "train", device="meta")
    assert dataset.images.device.type == dataset.labels.device.type == "meta"
    (rows, share), *_ = TrainBatches(150, 32, 0, device="meta")
    batch = dataset[rows, share]
    assert batch.image.device.type == batch.label.device.type == batch.rows.device.type == "meta"
    assert batch.image.shape == (32, 1, 20, 20)


@pytest.mark.parametrize("color", ["grey", "rgb"])
def test_images_on_disk_are_those_in_memory(tmp_path, color, small_blocks):
    file = write_tiny(tmp_path / "a.h5", {"train": 50, "val": 7}, FaceFormat(size=20, color=color))
    memory, images = FaceDataset(file, "train"), DiskImages(file, "train")
    rows = torch.tensor([49, 0, 17, 17, 3, 30, 31, 32, 48])
    assert torch.equal(images[rows], memory.images[rows])
    every = torch.randperm(50)
    assert torch.equal(images[every], memory.images[every])
    # every block was read, and no more than two buffers are held: blocks of 3 grey faces or of 1 coloured one
    assert images.block_rows == (3 if color == "grey" else 1) and len(images._blocks) == 2 * disk.BUFFER_BLOCKS


@pytest.mark.parametrize("start", [None, "fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_disk_gives_every_row_once_with_any_workers(tiny, small_blocks, start):
    # one that is spawned takes seconds to import torch, and what two of them share is shown by those that are forked
    data = FaceDataModule(tiny, 32, num_workers={None: 0, "fork": 2, "spawn": 1}[start], keep="disk")
    data.setup("fit")
    # the parent has read, so that a forked worker inherits an open file
    data._splits["train"].images[torch.tensor([0])]
    loader = data.train_dataloader()
    loader.multiprocessing_context = start
    batches = list(loader)
    assert sorted(torch.cat([batch.rows for batch in batches]).tolist()) == list(range(150))
    images = torch.from_numpy(read_column(tiny, "train", "image"))
    labels = torch.from_numpy(read_column(tiny, "train", "label"))
    for batch in batches:
        assert torch.equal(batch.image[:, 0], images[batch.rows]) and torch.equal(batch.label, labels[batch.rows])


def test_disk_reads_each_block_once_an_epoch(tiny, small_blocks, monkeypatch):
    data = FaceDataModule(tiny, 8, keep="disk")
    data.setup("fit")
    images, reads = data._splits["train"].images, []
    images[torch.tensor([0])]
    stored = images._images

    class Counted:
        def __getitem__(self, rows):
            reads.append((rows.start, rows.stop))
            return stored[rows]

    images._images = Counted()
    images._blocks.clear()
    assert len(list(data.train_dataloader())) == 19
    # 150 rows in blocks of 3
    assert sorted(reads) == [(start, start + 3) for start in range(0, 150, 3)]


def test_the_order_in_blocks_is_of_seed_and_epoch_and_cut_among_ranks(small_blocks):
    order = Order(torch.arange(100), block_rows=3)
    first = rows_of(order)
    assert sorted(torch.cat(first).tolist()) == list(range(100))
    assert all(torch.equal(a, b) for a, b in zip(first, rows_of(order), strict=True))
    assert not torch.equal(torch.cat(first), torch.cat(rows_of(order, epoch=1)))
    assert not torch.equal(torch.cat(first), torch.cat(rows_of(order, seed=1)))
    # in the middle of the epoch it goes on as it would have
    assert all(torch.equal(a, b) for a, b in zip(first[5:], rows_of(order, start=5), strict=True))
    two = [rows_of(order, rank=rank, ranks=2) for rank in (0, 1)]
    assert all(torch.equal(torch.cat([a, b]), whole) for a, b, whole in zip(*two, first, strict=True))
    # the first 4 blocks of 3 rows come before all others, but not one block after the other
    buffer = torch.cat(first)[:12]
    assert len(set((buffer // 3).tolist())) <= 5
    assert buffer.diff().abs().max() > 1 and not torch.equal(buffer, buffer.sort().values)


def test_a_run_cut_in_the_middle_of_an_epoch_on_disk_resumes_exactly(tiny, tmp_path, small_blocks):
    keep = {"data.keep": "disk", "trainer.max_epochs": 2}
    train(train_config(tiny, **keep), tmp_path / "straight")
    trainer, model, data, _ = assemble(train_config(tiny, **keep), tmp_path / "cut")
    cut = tmp_path / "cut/checkpoints/cut.ckpt"

    class Save(pl.Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            if (trainer.current_epoch, batch_idx) == (1, 2):
                trainer.save_checkpoint(cut)

    trainer.callbacks.append(Save())
    trainer.fit(model, datamodule=data)
    train(train_config(tiny, **keep, resume=cut), tmp_path / "rest")
    assert_same_weights(tmp_path / "straight", tmp_path / "rest")
    with pytest.raises(InputError, match=r"order is another with data\.keep=disk; resume it with data\.keep=disk"):
        train(train_config(tiny, **{**keep, "data.keep": "memory"}, resume=cut), tmp_path / "other")


def test_balanced_draws_each_class_as_often_as_any_other():
    counts = torch.tensor([4000, 400, 40, 4])
    labels = torch.repeat_interleave(torch.arange(4), counts)
    order = Order(torch.arange(len(labels)), labels)
    drawn = torch.stack([torch.cat(rows_of(order, batch_size=64, epoch=epoch)) for epoch in range(10)])
    assert drawn.shape == (10, 4444)
    for share, times in [
        (1 / 4, torch.bincount(labels[drawn.flatten()], minlength=4)),
        # the four rows of the smallest class share its quarter
        (1 / 16, torch.bincount(drawn.flatten(), minlength=4444)[-4:]),
    ]:
        low, high = binom.interval(0.9999, drawn.numel(), share)
        assert all(low <= n <= high for n in times.tolist())


def test_balanced_is_of_seed_and_epoch_and_cut_among_ranks():
    labels = torch.arange(100) % 7
    order = Order(torch.arange(100), labels)
    first = rows_of(order)
    assert all(torch.equal(a, b) for a, b in zip(first, rows_of(order), strict=True))
    assert not torch.equal(torch.cat(first), torch.cat(rows_of(order, epoch=1)))
    assert all(torch.equal(a, b) for a, b in zip(first[3:], rows_of(order, start=3), strict=True))
    two = [rows_of(order, rank=rank, ranks=2) for rank in (0, 1)]
    assert all(torch.equal(torch.cat([a, b]), whole) for a, b, whole in zip(*two, first, strict=True))


def test_balanced_on_disk_draws_the_same_rows_as_in_memory(small_blocks):
    labels = (torch.arange(100) < 10).long()
    memory = torch.cat(rows_of(Order(torch.arange(100), labels)))
    blocks = torch.cat(rows_of(Order(torch.arange(100), labels, block_rows=3)))
    assert memory.sort().values.tolist() == blocks.sort().values.tolist() and not torch.equal(memory, blocks)


def test_only_the_chosen_rows_are_drawn():
    rows = torch.tensor([2, 3, 5, 7, 11, 13])
    for order in (Order(rows), Order(rows, block_rows=2)):
        assert sorted(torch.cat(rows_of(order, batch_size=4)).tolist()) == rows.tolist()


def test_auto_keeps_a_small_file_in_memory_and_a_large_one_on_disk(tiny, capsys, monkeypatch):
    info = read_info(tiny)
    # 190 faces of train and val, 400 bytes each: 76,000 bytes are half of 152,000
    for available, processes, found in [(152_000, 1, "memory"), (151_999, 1, "disk"), (152_000, 2, "disk")]:
        monkeypatch.setattr("fer.data.storage.lazy_images.available_memory", lambda available=available: available)
        assert choose_keep(info, torch.device("cpu"), processes) == found
    kept(tiny, "auto")
    assert capsys.readouterr().out == ""
    monkeypatch.setattr("fer.data.storage.lazy_images.available_memory", lambda: 1)
    kept(tiny, "auto")
    assert capsys.readouterr().out == "data.keep=auto: the faces are kept on disk\n"


@pytest.mark.skipif(not Path("/proc/meminfo").is_file(), reason="psutil's own number is compared on Linux only")
def test_available_memory_is_what_psutil_says():
    psutil = pytest.importorskip("psutil")
    assert available_memory() == pytest.approx(psutil.virtual_memory().available, rel=0.2)


@pytest.mark.parametrize(
    "line, files, found",
    [
        # systemd and SLURM with version 2: the job's own limit, and that of all jobs
        ("0::/slurm/job_7/step", {"slurm/job_7/memory.max": "2000\n", "slurm/memory.max": "9000\n"}, [2000, 9000]),
        ("0::/slurm/job_7", {"slurm/job_7/memory.max": "max\n", "memory.max": "7\n"}, [7]),
        # version 1, where each controller has a tree of its own
        ("5:cpu:/other\n4:memory:/slurm/job_7\n0::/", {"memory/slurm/job_7/memory.limit_in_bytes": "3000\n"}, [3000]),
        # a container: the name is the host's
        ("4:memory:/docker/0af", {"memory/memory.limit_in_bytes": "4000\n"}, [4000]),
        ("0::/", {}, []),
    ],
)
def test_a_jobs_memory_is_that_of_its_cgroup(tmp_path, line, files, found):
    (tmp_path / "member").write_text(line + "\n")
    for name, text in files.items():
        file = tmp_path / "fs" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    assert cgroup_limits(tmp_path / "member", tmp_path / "fs") == found


def test_a_wrong_choice_is_refused_by_name(tiny):
    for key, value in [("data.keep", "gpu"), ("recipe.sampler", "random"), ("recipe.votes", "hard")]:
        with pytest.raises(InputError, match=rf"{key}={value}: not "):
            train_config(tiny, **{key: value})


def test_buffers_are_large_enough_to_shuffle():
    # FER2013's 28,709 faces of 48 x 48 fit into one buffer
    assert BUFFER_BLOCKS * disk._BLOCK_BYTES > 28_709 * 48 * 48


def test_blocks_shuffle_as_well_as_the_formula_of_cluster_samples_says():
    # Kish's design effect: how much more the share of a class varies among batches of b rows than among random ones.
    # In a file sorted by class a pair of rows is of one block, and so of one class, in 1 of BUFFER_BLOCKS cases.
    classes, blocks, block_rows, batch = 8, 16 * BUFFER_BLOCKS, 28, 64
    n = blocks * block_rows
    labels = torch.arange(n) * classes // n
    variance = []
    for order in (Order(torch.arange(n), block_rows=block_rows), Order(torch.arange(n))):
        drawn = labels[order.draw(torch.Generator().manual_seed(0))]
        shares = torch.nn.functional.one_hot(drawn.view(-1, batch), classes).double().mean(1)
        variance.append(shares.var(0).mean().item())
    assert variance[1] == pytest.approx(1 / 8 * 7 / 8 / batch, rel=0.1)
    # 1 + 63 / 256
    assert variance[0] / variance[1] == pytest.approx(1 + (batch - 1) / 256, rel=0.1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
def test_a_step_copies_no_pixels_to_the_accelerator(tiny):
    data = FaceDataModule(tiny, 32, keep="device")
    trainer = pl.Trainer(accelerator="gpu", devices=1, logger=False, enable_checkpointing=False)
    data.trainer = trainer
    data.setup("fit")
    batches = iter(data.train_dataloader())
    next(batches)
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert next(batches).image.is_cuda
    finally:
        torch.cuda.set_sync_debug_mode("default")
