"""W&B offline and MLflow in a local database: what a run leaves in their files, and that nothing is sent."""

import json
import os
import socket
import sqlite3
import struct
import subprocess
import sys
import threading

import pandas as pd
import pytest
from PIL import Image

from tests.conftest import ROOT, write_tiny

pytest.importorskip("wandb")
pytest.importorskip("mlflow")
pytestmark = pytest.mark.slow

TINY = ["data=fer2013", "data.file=tiny.h5", "data.size=20", "augment.crop=16", "model=vgg_small", "batch_size=32",
        "trainer=cpu", "trainer.enable_progress_bar=false", "trainer.max_epochs=2", "hydra.run.dir=run"]  # fmt: skip


@pytest.fixture
def proxy():
    """A proxy that all of the web is to be reached by; gives its address and the first bytes of each connection."""
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen():
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    asked.append(connection.recv(200))

        threading.Thread(target=listen, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", asked
        server.shutdown(socket.SHUT_RDWR)


def trained(tmp_path, proxy, *words):
    """Train in an empty folder, without the web; return the last values of the csv."""
    address, asked = proxy
    write_tiny(tmp_path / "tiny.h5", {"train": 64, "val": 21})
    ours = {name: value for name, value in os.environ.items() if not name.upper().startswith(("WANDB_", "MLFLOW_"))}
    web = {name: address for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")}
    done = subprocess.run(
        [sys.executable, "-m", "fer", "train", *TINY, *words],
        cwd=tmp_path, env=ours | web | {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path / "home")},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert asked == []
    rows = pd.read_csv(tmp_path / "run/metrics/metrics.csv").dropna(subset=["val/acc"])
    assert len(rows) == 2
    return rows.set_index("step")["val/acc"]


def wandb_records(path):
    """Yield the records of an offline run: LevelDB's log, blocks of 32 KiB, behind a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, place, whole = path.read_bytes(), 7, b""
    while place < len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        whole += content[place + 7 : place + 7 + length]
        place += 7 + length
        # 1 is a whole record, 4 the last part of one
        if kind in (1, 4):
            record = Record()
            record.ParseFromString(whole)
            whole = b""
            yield record


def test_wandb_offline(tmp_path, proxy):
    acc = trained(tmp_path, proxy, "logger=wandb", "logger.wandb.offline=true", "tags=[first]", "notes=a try")
    (folder,) = (tmp_path / "run/wandb").rglob("offline-run-*")
    (log,) = folder.glob("*.wandb")
    records = list(wandb_records(log))
    history = [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in records if record.WhichOneof("record_type") == "history"
    ]  # fmt: skip
    assert [row["val/acc"] for row in history if "val/acc" in row] == pytest.approx(acc.tolist(), abs=1e-6)
    config = {}
    for record in records:
        for update in (record.config.update, record.run.config.update):
            config |= {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in update}
    assert config["optimizer"]["lr"] == 0.01 and config["model"]["name"] == "vgg_small"
    (run,) = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    assert list(run.tags) == ["first"] and run.notes == "a try" and run.project == "fer"
    # two epochs of two steps: the confusion matrix is drawn where val/acc is better than before
    pictures = {path.relative_to(folder / "files/media/images").parent / path.name.split("_")[0]
                for path in (folder / "files/media/images").rglob("*.png")}  # fmt: skip
    assert {str(name) for name in pictures} == {"input/augmented", "val/confusion"}
    assert all(Image.open(path).size[0] > 100 for path in (folder / "files/media/images").rglob("*.png"))
    assert sum(row.get("input/augmented/count", 0) for row in history) == 1


def test_mlflow_in_a_database_of_this_folder(tmp_path, proxy):
    acc = trained(tmp_path, proxy, "logger=mlflow", "name=first")
    with sqlite3.connect(tmp_path / "mlflow.db") as opened:
        logged = opened.execute("select step, value from metrics where key = 'val/acc' order by step").fetchall()
        parameters = dict(opened.execute("select key, value from params").fetchall())
        (run,) = opened.execute("select name, status, artifact_uri from runs").fetchall()
    assert dict(logged) == pytest.approx(acc.to_dict(), abs=1e-6)
    assert float(parameters["optimizer/lr"]) == 0.01 and parameters["model/name"] == "vgg_small"
    assert run[:2] == ("first", "FINISHED")
    pictures = [path for path in (tmp_path / "mlruns").rglob("*.png") if str(path).startswith(run[2])]
    assert {path.parent.name for path in pictures} == {"augmented", "confusion"}
    assert all(Image.open(path).size[0] > 100 for path in pictures)
