"""A full disk, here the system's limit on a file's size, leaves the file that was there and says so in one line."""

import re
import resource
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from fer.errors import InputError
from fer.system.files import claiming, replacing, replacing_folder, write_files
from fer.training.run import train
from tests.conftest import fit, train_config, write_tiny


@contextmanager
def files_end_at(size):
    """Let writing past ``size`` bytes of a file fail with EFBIG; on a full disk it is ENOSPC, at the same calls."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_without_room_leaves_the_one_before(tmp_path):
    path = tmp_path / "new" / "file"
    with replacing(path) as temporary:
        temporary.write_bytes(b"old")
    with files_end_at(1000), pytest.raises(InputError) as raised, replacing(path) as temporary:
        temporary.write_bytes(bytes(1001))
    assert str(raised.value) == (
        f"{path}: not written, file too large; the one written before is intact: free space or choose another place"
    )
    assert path.read_bytes() == b"old"
    assert [each.name for each in path.parent.iterdir()] == ["file"]


def test_a_block_that_raises_leaves_the_one_before(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_appears_whole_and_without_what_a_killed_run_left(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "out.tmp").mkdir()
    (tmp_path / "out.tmp" / "left").write_text("by a killed run")
    with replacing_folder(out) as folder:
        (folder / "new").write_text("whole")
        assert list(out.iterdir()) == []
    assert [path.name for path in out.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [out]


def test_a_folder_whose_block_raises_leaves_what_was_there(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "old").write_text("old")
    with pytest.raises(KeyboardInterrupt), replacing_folder(out, lambda _: None) as folder:
        (folder / "half").write_text("half")
        raise KeyboardInterrupt
    assert [path.name for path in out.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [out]
    with replacing_folder(out, lambda _: None) as folder:
        (folder / "new").write_text("new")
    assert [path.name for path in out.iterdir()] == ["new"]
    assert list(tmp_path.iterdir()) == [out]


def test_a_folder_that_was_filled_meanwhile_is_not_replaced(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(InputError, match="out: already exists and is not an empty folder"), replacing_folder(out):
        out.mkdir()
        (out / "somebody's").write_text("work")
    assert (out / "somebody's").read_text() == "work"
    assert list(tmp_path.iterdir()) == [out]


def test_files_of_a_report_without_room_leave_those_before(tmp_path):
    writers = {"a.csv": lambda path: path.write_bytes(bytes(10)), "b.csv": lambda path: path.write_bytes(bytes(10))}
    assert list(write_files(tmp_path, writers)) == ["b.csv", "a.csv"]
    writers["b.csv"] = lambda path: path.write_bytes(bytes(1001))
    with files_end_at(1000), pytest.raises(InputError, match=r"b\.csv: not written, file too large; the one written"):
        write_files(tmp_path, writers)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.csv": bytes(10), "b.csv": bytes(10)}


def test_a_prepared_file_without_room_leaves_the_one_before(tmp_path):
    path = write_tiny(tmp_path / "faces.h5", {"train": 20})
    before = path.read_bytes()
    with files_end_at(300_000), pytest.raises(InputError, match="faces.h5: not written, file too large; the one wri"):
        write_tiny(path, {"train": 2000})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_checkpoint_without_room_leaves_the_one_before_which_resumes(tmp_path):
    file = write_tiny(tmp_path / "faces.h5", {"train": 70, "val": 14})
    out = tmp_path / "run"
    fit(train_config(file, **{"trainer.max_epochs": 1}), out)
    last = out / "checkpoints/last.ckpt"
    before = {path.name: path.read_bytes() for path in last.parent.iterdir()}
    more = {"trainer.max_epochs": 3, "resume": last}
    with files_end_at(1 << 20), pytest.raises(InputError, match="ckpt: not written, file too large; the one written"):
        train(train_config(file, **more), out)
    assert {path.name: path.read_bytes() for path in last.parent.iterdir()} == before
    fit(train_config(file, **more), out)
    assert last.read_bytes() != before["last.ckpt"]


def test_checkpoints_are_written_beside_the_one_before(tmp_path, monkeypatch):
    # Lightning's way over $TMPDIR would be a copy onto the old file where that is another file system
    monkeypatch.setenv("TMPDIR", str(tmp_path / "there is no such folder"))
    file = write_tiny(tmp_path / "faces.h5", {"train": 35, "val": 14})
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "there is no such folder"))
    fit(train_config(file, **{"trainer.max_epochs": 1}), tmp_path / "run")
    assert Path(tmp_path / "run/checkpoints/last.ckpt").stat().st_size > 1 << 20


def test_a_place_that_takes_no_file_is_named(tmp_path):
    (tmp_path / "file").touch()
    below = tmp_path / "file" / "new" / "faces.h5"
    message = re.escape(f"{below}: not written, not a directory: choose another place")
    with pytest.raises(InputError, match=message), replacing(below) as temporary:
        temporary.touch()
    with pytest.raises(InputError, match=message), replacing_folder(below):
        pass
    with pytest.raises(InputError, match=re.escape("not written, not a directory")):
        write_files(below, {"a.csv": lambda path: path.write_text("a")})
    with pytest.raises(InputError, match=message), claiming(below):
        pass
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(InputError, match=re.escape(f"{folder}: not written, is a directory: choose")):
        with replacing(folder) as temporary:
            temporary.touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_file_that_is_only_read_is_not_taken_for_the_one_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError) as raised, replacing(tmp_path / "new") as temporary:
        temporary.write_bytes((tmp_path / "file" / "photo.jpg").read_bytes())
    assert raised.value.filename == str(tmp_path / "file" / "photo.jpg")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_output_belongs_to_one_process(tmp_path):
    out = tmp_path / "new" / "faces.h5"
    code = "import sys; from pathlib import Path; from fer.system.files import claiming\n"
    code += "with claiming(Path(sys.argv[1])): print('has it', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code, out], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout.readline() == "has it\n"
        with pytest.raises(InputError) as raised, claiming(out):
            pass
        assert str(raised.value) == (f"{out}: another process is writing it: wait for it to end, or give another out=")
        with claiming(tmp_path / "new" / "other.h5"):
            pass
        # not even kill -9 leaves it taken
        first.kill()
    with claiming(out):
        assert [path.name for path in out.parent.iterdir()] == [".faces.h5.lock"]
    assert list(out.parent.iterdir()) == []


def test_a_claim_leaves_no_folder_that_nothing_came_into(tmp_path):
    with pytest.raises(KeyboardInterrupt), claiming(tmp_path / "a" / "b" / "out"):
        assert (tmp_path / "a" / "b").is_dir()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    # nobody, root neither, makes files in /proc
    with (
        pytest.raises(InputError, match="^/proc/out: not written, its folder takes no files"),
        claiming(Path("/proc/out")),
    ):
        pass


def test_of_several_files_all_get_their_names_or_none(tmp_path):
    def full(path):
        path.write_bytes(bytes(1001))

    writers = {"a": lambda path: path.write_text("new"), "b": full, "c": lambda path: path.write_text("new")}
    with files_end_at(1000), pytest.raises(InputError, match=f"^{tmp_path}/out/b: not written, file too large"):
        write_files(tmp_path / "out", writers)
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a").write_text("old")
    with files_end_at(1000), pytest.raises(InputError):
        write_files(tmp_path / "out", writers)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a"] and (tmp_path / "out/a").read_text() == "old"
    assert list(write_files(tmp_path / "out", writers)) == ["c", "b", "a"]
