"""The one place that chooses who does the work: our own networks, or Darknet nets in torch or by the darknet program.

A network's file decides by its suffix (see `fer.engines`); of a Darknet net ``darknet.engine`` says the rest. Whatever
needs torch or OpenCV is imported where it is chosen, so that importing this costs nothing.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from fer.engines import is_darknet, resolve
from fer.errors import InputError
from fer.targets import build, trusting

if TYPE_CHECKING:
    import numpy as np

    from fer.data.inputs import Picture
    from fer.prediction.backends import NetworkInfo
    from fer.prediction.base import BasePredictor
    from fer.prediction.face import Face
    from fer.prediction.own_detector import OwnCallable
    from fer.prediction.result import Result

#: As `fer.prediction.detectors.MIN_SIZE`, which needs OpenCV.
_MIN_SIZE = 40
#: As `fer.prediction.base.BATCH`, which does too.
_BATCH = 32


class Predictor:
    """Finds and names the faces of pictures; cropped, turned grey and resized as the network's data were prepared.

    `load` opens one. A picture is one of these; alpha is dropped:

    * the path of a file, its bytes, or an http(s) address;
    * a PIL image;
    * an array (h, w) grey, (h, w, 3) RGB or (h, w, 4) RGBA: uint8 from 0 to 255, or floats from 0 to 1;
    * a tensor of the same values, (H, W), (1, H, W), (3, H, W) or (4, H, W).

    Several threads may call one predictor. It can be pickled: the other process opens the same files again. ``with``
    closes it.

    Examples:
        >>> import numpy as np
        >>> with Predictor.load("fer2013_vgg9", faces="whole", device="cpu") as predictor:
        ...     [face.box for face in predictor(np.zeros((90, 60, 3), np.uint8))]
        [(0.0, 0.0, 60.0, 90.0)]
    """

    def __init__(self, predictor: "BasePredictor", arguments: dict[str, Any] | None = None) -> None:
        self._open: BasePredictor | None = predictor
        self._arguments = arguments

    def __enter__(self) -> "Predictor":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End its threads and let go of the network; a later call is refused."""
        if self._open:
            self._open.close()
        self._open = None

    @property
    def _predictor(self) -> "BasePredictor":
        if self._open is None:
            raise InputError("the predictor was closed; open another one with Predictor.load")
        return self._open

    def __repr__(self) -> str:
        if self._open is None:
            return "Predictor(closed)"
        network, detector = self._open.network, self._open.found_by.partition(" (")[0]
        ckpt = f"{Path(self._arguments['ckpt']).name!r}, " if self._arguments else ""
        return f"Predictor({ckpt}network={network.name!r}, faces={detector!r}, device={network.device!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        if self._arguments is None or self._open is None:
            raise TypeError("only an open predictor of Predictor.load can be pickled")
        return _loaded, (self._arguments,)

    @classmethod
    def load(
        cls,
        ckpt: str | Path,
        faces: "str | OwnCallable" = "auto",
        faces_model: str | None = None,
        device: str = "auto",
        min_confidence: float | None = None,
        min_size: int = _MIN_SIZE,
        cfg: str | Path | None = None,
        names: str | Path | None = None,
        trust: Iterable[str] = (),
        margin: float | None = None,
        tta: bool = False,
        classes: Sequence[str] | None = None,
    ) -> "Predictor":
        """Open a network and a face detector; a Darknet detector finds the faces itself.

        Args:
            ckpt: a .ckpt, .safetensors, .onnx or .weights file, or the name of a shipped network.
            faces: who finds the faces. "haar": OpenCV's cascade. "yunet": YuNet, whose file is fetched once where
                ``faces_model`` gives none. "auto": YuNet where its file was fetched before, else the cascade.
                "whole": nobody, each picture is a face. Or a callable of your own: it takes a picture uint8 (H, W, 3)
                RGB and gives boxes (n, 4), x, y, width, height in pixels, and scores (n,).
            faces_model: YuNet's .onnx file.
            device: where the network runs: "auto", "cpu", "cuda", "cuda:1", ...
            min_confidence: the probability, 0 to 1, below which a face has no label. None is 0, and 0.25 for .weights.
            min_size: the side in pixels of the smallest face that is looked for; not for a callable of your own.
            cfg: the .cfg file of .weights. None: the one beside them.
            names: the file of the class names of .weights, one a line. None: the one beside them.
            trust: packages whose classes the file may name as its network, as ("my_lab",); see `load_checkpoint`.
            margin: widens each box by this fraction of its width and height. None: as the network's faces were cut.
            tta: average ten crops of each face (test-time augmentation); not for .onnx and .weights.
            classes: two or more classes to choose among; the logits of all others are masked. None: all.

        Raises:
            InputError: a file that is missing, not ours or of a class not trusted, an unknown detector or device.
        """
        trust = tuple(trust)
        arguments = {
            "ckpt": _absolute(ckpt), "faces": faces, "faces_model": _absolute(faces_model), "device": device,
            "min_confidence": min_confidence, "min_size": min_size, "cfg": _absolute(cfg), "names": _absolute(names),
            "margin": margin, "tta": tta, "classes": classes,
        }  # fmt: skip
        with trusting(trust):
            predictor = open_predictor(
                ckpt, faces, faces_model, device, min_confidence, min_size, cfg, names, margin, tta, classes
            )
        return cls(predictor, arguments | {"trust": trust})

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes, in the order of every face's probabilities."""
        return self._predictor.labels

    @property
    def network(self) -> "NetworkInfo":
        """What names the faces: its ``name``, the ``face`` it takes, and whether it was trained on ``drawn`` ones."""
        return self._predictor.network

    @property
    def min_confidence(self) -> float:
        """The probability below which a face has no label."""
        return self._predictor.min_confidence

    @overload
    def __call__(  # type: ignore[overload-overlap]
        self, pictures: "Picture", stream: Literal[False] = False, embed: bool = False, batch: int = _BATCH
    ) -> "Result": ...
    @overload
    def __call__(
        self, pictures: "Iterable[Picture]", stream: Literal[False] = False, embed: bool = False, batch: int = _BATCH
    ) -> "list[Result]": ...
    @overload
    def __call__(
        self, pictures: "Picture | Iterable[Picture] | int", stream: Literal[True], embed: bool = False,
        batch: int = _BATCH,
    ) -> "Iterator[Result]": ...  # fmt: skip
    def __call__(
        self, pictures: Any, stream: bool = False, embed: bool = False, batch: int = _BATCH
    ) -> "Result | list[Result] | Iterator[Result]":
        """Return the faces of a picture, a `Result`; of a list or generator of pictures a list of results.

        A result is a list of faces, empty where none is found. A single picture that can't be read is an InputError;
        one of several has a result with ``error``. With ``stream`` results are given one by one, in any number: of a
        list or generator, a folder with all below it, a glob, a video (a result a frame), a camera's number or an
        rtsp:// address. ``embed`` gives each face its ``embedding``. Of ``batch`` pictures at most the faces are named
        together; 1 takes no picture before the result of the last is used.

        Raises:
            InputError: a single picture that can't be read or is none; nothing to stream; a network without embeddings;
                the predictor was closed.
        """
        # here, as it has Pillow, which importing this costs nothing of
        from fer.data.inputs import is_one

        if stream:
            return self._predictor.stream(pictures, embed, batch)
        if is_one(pictures):
            return self._predictor(pictures, embed)
        return self._predictor.batch(pictures, embed, batch)

    def batch(self, pictures: "Iterable[Picture]", embed: bool = False) -> "list[Result]":
        """Return the faces of each picture: read and searched in parallel, named together in batches of the network.

        The same as a call with a list. Where many pictures are given, ``cv2.setNumThreads(1)`` beforehand leaves the
        cores to these threads.

        Raises:
            InputError: a network without embeddings; the predictor was closed.
        """
        return self._predictor.batch(pictures, embed)

    def frames(self, frames: "Sequence[np.ndarray]", every: int = 1) -> "list[list[Face]]":
        """Return the faces of each of some consecutive frames of a video, arrays as in a call, named together.

        Each ``every``-th frame and the last are searched whole, those between only near the faces of the two around; a
        Darknet detector searches all of them whole.

        Raises:
            InputError: an array that is no picture; an ``every`` that is no number of frames.
        """
        if type(every) is not int or every < 1:
            raise InputError(f"every={every!s:.40}: a number of frames, 1 or more")
        return self._predictor.frames(frames, every)


def _loaded(arguments: dict[str, Any]) -> Predictor:
    return Predictor.load(**arguments)


def _absolute(file: str | Path | None) -> str | None:
    """Return a file's absolute path, which holds in any folder; what is no file, such as a shipped name, as it is."""
    if file is None:
        return None
    return os.path.abspath(file) if os.path.exists(file) else str(file)


def open_predictor(
    ckpt: str | Path,
    faces: "str | OwnCallable" = "auto",
    faces_model: str | None = None,
    device: str = "auto",
    min_confidence: float | None = None,
    min_size: int = _MIN_SIZE,
    cfg: str | Path | None = None,
    names: str | Path | None = None,
    margin: float | None = None,
    tta: bool = False,
    classes: Sequence[str] | None = None,
) -> "BasePredictor":
    """Return what is behind a `Predictor`; arguments and errors are those of `Predictor.load`."""
    ckpt = resolve(str(ckpt))
    if is_darknet(ckpt):
        from fer.darknet.torch_engine.predictor import load

        cfg_file, names_file = Path(cfg) if cfg else None, Path(names) if names else None
        return load(
            Path(ckpt), cfg_file, names_file, faces, faces_model, device, min_confidence, min_size, margin, tta, classes
        )
    from fer.prediction.predictor import FacePredictor

    return FacePredictor.load(ckpt, faces, faces_model, device, min_confidence, min_size, margin, tta, classes)


def detector_arguments(faces: dict[str, Any]) -> dict[str, Any]:
    """Return the arguments of `open_predictor` that checked keys of conf/faces say; a target among them is built."""
    if "_target_" not in faces:
        return {"faces": faces["name"], "faces_model": faces["model"], "min_size": faces["min_size"]}
    detector = build(faces, "faces")
    if not callable(detector):
        raise InputError(f"faces._target_={faces['_target_']}: what it builds cannot be called with a picture")
    return {"faces": detector}


def predict(keys: dict[str, Any], faces: dict[str, Any], darknet: dict[str, Any] | None = None) -> int:
    """Do what predict.py does with checked keys, see `fer.prediction.run.predict`; return how many files failed.

    ``faces`` are the keys of conf/faces; ``darknet`` those of conf/darknet, needed for a .weights file.
    """
    files: dict[str, Any] = {}
    if darknet and is_darknet(keys["ckpt"]):
        if darknet["engine"] == "binary":
            from fer.darknet.program_engine.predict import predict as predict_by_program

            return predict_by_program(keys, darknet)
        files = {key: darknet[key] for key in ("cfg", "names")}
    from fer.prediction.run import predict as predict_with

    def open_it() -> "BasePredictor":
        return open_predictor(
            keys["ckpt"], device=keys["device"], min_confidence=keys["min_confidence"], margin=keys["margin"],
            tta=keys["tta"], classes=keys["classes"], **detector_arguments(faces), **files,
        )  # fmt: skip

    return predict_with(keys, open_it)


def evaluate_each(keys: dict[str, Any], data: dict[str, dict[str, Any]]) -> None:
    """Do what evaluate.py does for several data sets: name -> checked data config. Not for .weights."""
    from fer.evaluation.run import evaluate_each as evaluate_classifier

    evaluate_classifier(keys, data)


def evaluate(keys: dict[str, Any], data: dict[str, Any] | None, darknet: dict[str, Any] | None = None) -> float | None:
    """Do what evaluate.py does with checked keys and a checkpoint, a list of them or .weights; return the score.

    ``data`` is a checked data config or None; ``darknet`` are the keys of conf/darknet, needed for a .weights file.
    """
    if darknet and isinstance(keys["ckpt"], str) and is_darknet(keys["ckpt"]):
        from fer.darknet.evaluate import evaluate as evaluate_darknet

        return evaluate_darknet(keys, data, darknet)
    from fer.evaluation.run import evaluate as evaluate_classifier

    return evaluate_classifier(keys, data)


def export(keys: dict[str, Any], data: dict[str, Any] | None, darknet: dict[str, Any] | None = None) -> Path:
    """Do what export.py does with checked keys; return the written file. ``data`` and ``darknet`` as in `evaluate`."""
    if darknet and is_darknet(keys["ckpt"]):
        from fer.darknet.torch_engine.export import export as export_darknet

        return export_darknet(keys, data, darknet)
    from fer.deployment.export import export as export_classifier

    return export_classifier(keys, data)


def train(config: dict[str, Any], out: Path) -> float:
    """Train a checked config under ``out`` (`check_train`, or `check_darknet_train` of a Darknet net); return val/acc.

    Of a Darknet net it is the best score of its validation.
    """
    if "darknet" not in config:
        from fer.training.run import train as train_classifier

        return train_classifier(config, out)["val/acc"]
    if config["darknet"]["engine"] == "torch":
        from fer.darknet.torch_engine.training.run import train as train_in_torch

        return train_in_torch(config, out)
    from fer.darknet.program_engine.training import train as train_by_program

    return train_by_program(config, out)
