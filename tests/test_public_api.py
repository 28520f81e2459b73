"""The names that `import fer` gives, and what importing them costs."""

import subprocess
import sys
import tomllib

import fer
from tests.conftest import ROOT

NAMES = {
    "CLASSES", "EmotionClassifier", "Face", "FaceDataModule", "InputError", "Predictor", "Result",
    "__version__",
    "load_checkpoint",
}  # fmt: skip

#: What training and reports need, but no prediction.
HEAVY = ["pytorch_lightning", "lightning_fabric", "torchmetrics", "pandas", "matplotlib", "hydra", "omegaconf"]


def python(program):
    """Run a program as a process of its own and return what it printed."""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_names_are_these():
    assert set(fer.__all__) == NAMES <= set(dir(fer))
    assert not hasattr(fer, "nothing_of_that_name")
    # in a process of its own, as Lightning sets environment variables when it is imported
    python(
        "import fer\n"
        f"assert all(getattr(fer, name) is not None for name in {sorted(NAMES)})\n"
        "from fer import *\n"
        "assert CLASSES == ('Angry', 'Disgust', 'Fear', 'Happy', 'Sad', 'Surprise', 'Neutral')\n"
        "assert issubclass(InputError, ValueError) and callable(Predictor.load)\n"
        "assert isinstance(load_checkpoint('fer2013_vgg9'), EmotionClassifier)\n"
    )


def test_the_version_is_pyprojects():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert fer.__version__ == project["version"]


def test_importing_fer_imports_nothing_large():
    python("import sys, fer; assert not {'torch', 'numpy', 'cv2'} & set(sys.modules)")
    # -X importtime tells the microseconds of each import on stderr, the package itself last
    command = [sys.executable, "-X", "importtime", "-c", "import fer"]
    times = []
    # the best of three, as other tests run at the same time
    for _ in range(3):
        lines = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stderr.splitlines()
        times += [int(line.split("|")[1]) for line in lines if line.split("|")[-1].strip() == "fer"]
    assert len(times) == 3 and min(times) < 50_000


def test_a_prediction_needs_no_training(capsys):
    """From a shipped network to a named face, in a process that imports nothing else."""
    count = python(
        "import sys\n"
        "import numpy as np\n"
        "from fer import Predictor\n"
        "predictor = Predictor.load('fer2013_vgg9', faces='whole', device='cpu')\n"
        "(face,) = predictor(np.zeros((60, 60, 3), np.uint8))\n"
        "assert face.label in predictor.labels\n"
        f"print(len(sys.modules), *set({HEAVY}) & set(sys.modules))\n"
    )
    with capsys.disabled():
        print(f"\nPredictor.load and a prediction import {count.split()[0]} modules")
    assert len(count.split()) == 1, count
    # torch alone has some 800
    assert int(count) < 2000


def test_no_module_of_a_prediction_needs_training():
    python(
        "import importlib, pkgutil, sys\n"
        "import fer.deployment, fer.models, fer.prediction\n"
        "for package in (fer.models, fer.prediction, fer.deployment):\n"
        "    for module in pkgutil.iter_modules(package.__path__, package.__name__ + '.'):\n"
        "        importlib.import_module(module.name)\n"
        "assert 'fer.prediction.gradcam' in sys.modules\n"
        f"found = set({HEAVY}) & set(sys.modules)\n"
        "assert not found, found\n"
    )
