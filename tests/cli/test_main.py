"""The command ``fer`` and the scripts of the checkout: the same jobs, and every end in one line."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from fer.cli.launch import launch
from fer.system.command import COMMANDS, command
from tests.conftest import ROOT, Singletons, write_tiny


def fer(*arguments, **options):
    return subprocess.run(
        [sys.executable, "-m", "fer", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, **options
    )


def test_the_first_word_chooses():
    done = fer("--help")
    assert done.returncode == 0 and all(f"\n  {name} " in done.stdout for name in COMMANDS)
    assert fer().returncode == 2
    done = fer("trian")
    assert done.returncode == 2
    assert done.stderr == "error: there is no command trian (did you mean train?); see `fer --help`\n"
    # the same command line as the script's, and its help says how it was started
    done = fer("prepare", "--help")
    assert done.stdout.count("  fer prepare ") > 3 and "python prepare.py" not in done.stdout
    done = fer("prepare", "nonsense=1")
    assert done.returncode == 2 and done.stderr.startswith("error: there is no key nonsense; valid in prepare: ")


@pytest.mark.parametrize("started", [["-m", "fer", "train"], ["train.py"]])
def test_help_may_be_cut_by_a_reader_that_has_enough(started):
    shell = f"{sys.executable} {' '.join(started)} --help | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], cwd=ROOT, capture_output=True, text=True, timeout=60)
    # 141 is a program that SIGPIPE ended; 0 where all of it fitted into the pipe before the reader left
    assert done.stderr == "" and done.stdout.count("\n") == 1 and done.returncode in (0, 141)


@pytest.mark.parametrize(("where", "code"), [(">&-", 0), ("> /dev/full", 1)])
def test_output_that_goes_nowhere_gives_no_traceback(where, code):
    shell = f"{sys.executable} -m fer --help {where}"
    done = subprocess.run(["bash", "-c", shell], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == code and "Traceback" not in done.stderr and done.stderr.count("\n") == code


def test_what_to_type_next_follows_how_it_was_started(monkeypatch):
    for started, says in (
        ("/somewhere/bin/fer", "fer evaluate"),
        ("/somewhere/fer/__main__.py", "fer evaluate"),
        ("/checkout/train.py", "python evaluate.py"),
        ("/a/notebook/launcher.py", "fer evaluate"),
    ):
        monkeypatch.setattr(sys, "argv", [started, "key=value"])
        assert command("evaluate") == says
    monkeypatch.setattr(sys, "argv", ["train.py"])
    # there is no such script
    assert command("demo") == "fer demo" and command("compare") == "fer compare"


def test_the_doors_of_the_checkout_are_those_of_the_command():
    scripts = {path.stem for path in ROOT.glob("*.py")}
    assert scripts == COMMANDS.keys() - {"compare", "demo"}
    assert all(len((ROOT / f"{name}.py").read_text().splitlines()) < 8 for name in scripts)
    assert os.access(ROOT / ".ci/run", os.X_OK)


def test_each_job_of_a_sweep_is_what_lightning_starts_again(monkeypatch, tmp_path):
    started = []
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["/bin/fer", "look", "-m", "--config-dir", "mine", "seed=3,4", "out=a"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    with Singletons():
        launch(lambda cfg, _: started.append(sys.argv[:]), "look", ("look",))
    # the overrides stand at the end, where Lightning adds its own: those before a flag would be refused
    flags = ["--config-name", "look", "--config-dir", str(tmp_path / "mine")]
    assert started == [["/bin/fer", "look", *flags, f"seed={seed}", "out=a"] for seed in (3, 4)]


def test_a_line_stays_one_and_commands_no_terminal(tmp_path, run):
    # in a path, in a value, and in what a run.json of another program says of its end
    path = tmp_path / "two\nlines\x1b[31m\x07.h5"
    path.write_bytes(b"nothing")
    done = run("look.py", f"file='{path}'", cwd=tmp_path, code=2)
    assert done.stderr.endswith("\n") and done.stderr[:-1].isprintable()
    assert r"two lines\x1b[31m\x07.h5: not a readable HDF5 file" in done.stderr
    done = run("train.py", "data=sample", "model.name='vgg\x1b]0;title\x07'", cwd=tmp_path, code=2)
    assert done.stderr[:-1].isprintable() and r"vgg\x1b]0;title\x07" in done.stderr
    assert fer("tr\x1b[31main").stderr == "error: there is no command tr\\x1b[31main; see `fer --help`\n"


#: A module that is imported early, or only for the job, and gets Ctrl-C or SIGTERM meanwhile; it makes another error of
#: it, as C code may.
CUT = """
import os, signal, time
try:
    os.kill(os.getpid(), signal.Signals[os.environ["SENT"]])
    time.sleep(30)
except KeyboardInterrupt as error:
    raise ImportError("cut off") from error
"""


@pytest.mark.parametrize(("sent", "left"), [("SIGINT", (130, "", "")), ("SIGTERM", (143, "", "stopped by SIGTERM\n"))])
@pytest.mark.parametrize("module", ["hydra", "torch"])
@pytest.mark.parametrize("started", [["-m", "fer", "train"], [str(ROOT / "train.py")]])
def test_an_interrupt_during_the_imports_ends_quietly(tmp_path, module, started, sent, left):
    (tmp_path / f"{module}.py").write_text(CUT)
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    command = [sys.executable, *started, "data=sample"]
    env = {**os.environ, "PYTHONPATH": path, "SENT": sent}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == left


#: Parts that are being built or asked as SIGTERM comes.
TERMINATED = """
import os, signal
from pytorch_lightning.loggers import CSVLogger
from torch import nn
from fer.data.source import Block

def terminate():
    os.kill(os.getpid(), signal.SIGTERM)

class Net(nn.Module):
    def __init__(self, num_classes, times=1):
        try:
            terminate()
        except Exception:
            # whatever it may think that it is
            pass
        except BaseException:
            if times == 2:
                terminate()
            raise

class Log(CSVLogger):
    @property
    def experiment(self):
        super().experiment.save()
        terminate()

class Reader:
    names, class_names, notes = ("mine",), ("a", "b"), ()
    def fingerprint(self):
        return {}
    def blocks(self):
        yield Block([1], 0.5)
    def decode(self, block):
        terminate()
"""


def test_sigterm_before_the_first_step_is_one_line_and_stands_in_the_record(tmp_path, process):
    (tmp_path / "mine.py").write_text(TERMINATED)
    write_tiny(tmp_path / "tiny.h5", {"train": 70, "val": 14})
    words = ["data=fer2013", "data.file=tiny.h5", "data.size=20", "augment.crop=16", "trainer=cpu", "hydra.run.dir=run"]
    log = ["model=vgg_small", "logger=none", "+logger.mine._target_=mine.Log"]
    done = process("train.py", *words, *log, cwd=tmp_path, code=143)
    assert done.stderr == "stopped by SIGTERM\n"
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["exit"] == "stopped by SIGTERM" and record["ended"] and record["seconds"] >= 0
    shutil.rmtree(tmp_path / "run")
    # of what never began nothing is left
    net = ["model=custom", "model._target_=mine.Net"]
    assert process("train.py", *words, *net, cwd=tmp_path, code=143).stderr == "stopped by SIGTERM\n"
    assert {path.name for path in tmp_path.iterdir()} <= {"__pycache__", "mine.py", "tiny.h5"}
    # a second one, of somebody who has no patience, ends the process itself
    process("train.py", *words, *net, "+model.times=2", cwd=tmp_path, code=-signal.SIGTERM)


def test_sigterm_leaves_a_preparation_that_goes_on(tmp_path, process):
    (tmp_path / "mine.py").write_text(TERMINATED)
    words = ["data=custom", "data.source._target_=mine.Reader", "out=out.h5"]
    done = process("prepare.py", *words, cwd=tmp_path, code=143)
    assert done.stderr.replace("\r", "\n").splitlines()[-1] == "stopped by SIGTERM"
    assert "interrupted; the same command goes on where this one stopped" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == {"mine.py", "out.h5.partial"}


def test_a_program_that_is_to_ignore_interrupts_goes_on():
    # as a shell's script has it of what it starts in the background
    command = f"trap '' INT; {sys.executable} -m fer train --help & sleep 0.3; kill -INT $!; wait $!"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "fer train" in done.stdout
