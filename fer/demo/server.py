"""A page to try a checkpoint on this computer: ``fer demo ckpt=runs/NAME/DATE/checkpoints/best.ckpt``.

It is served to who has the address that it prints, on this computer, and asks no other host for anything. An upload is
held in memory for a while and lies in a private folder while its answer is worked out; an answer is never a file.
"""

import os
import secrets
import signal
import socket
from collections.abc import Collection
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import TYPE_CHECKING, Any

from fer.demo.about import introduce
from fer.demo.answer import CSS, MAX_SECONDS, Answerer
from fer.demo.example import KEY as EXAMPLE
from fer.demo.example import example
from fer.demo.uploads import Uploads
from fer.errors import InputError

if TYPE_CHECKING:
    import gradio

    from fer.prediction.base import BasePredictor
    from fer.prediction.gradcam import Explainer
    from fer.prediction.own_detector import OwnCallable

#: Largest upload, in bytes.
MAX_BYTES = 50 * 2**20
#: Most bytes of all uploads that are held or on their way, and seconds after which one is forgotten.
MAX_HELD, FORGET = 4 * MAX_BYTES, 600

_INTRODUCTION = """# What expression does the network see?
It names the expression that a face **shows**, as people who labelled photos perceived it; not what somebody feels.
For research and curiosity, not for decisions about people. Nothing leaves this computer and nothing is kept."""
_DRAWN = "**This network was trained on drawn faces.** What it says about real faces means nothing."
_LIMITS = f"At most {MAX_BYTES // 2**20} MB. Of a video the first {MAX_SECONDS} seconds, without sound."
_FORGOTTEN = '<p class="fer-error" role="alert">It is no longer held: give it again.</p>'
_EMPTY = "<p>Drop a photo or a video, use the camera, or try the example: the answer appears here.</p>"
#: What the ways to find faces are called on the page.
_FINDERS = {"yunet": "YuNet", "haar": "OpenCV's cascade", "whole": "Not at all: the whole picture is one face"}


def build_page(answer: Answerer, uploads: Uploads, note: str) -> "gradio.Blocks":
    """Return the page; ``note`` is said under its introduction."""
    import gradio

    lock = Lock()

    def respond(key: str, min_confidence: float, hide: bool, finder: str) -> Any:
        if not key:
            return gradio.skip()
        with lock:
            return answer(upload, min_confidence, hide, finder) if (upload := uploads.get(key)) else _FORGOTTEN

    with gradio.Blocks(title="Facial expressions", analytics_enabled=False) as page:
        gradio.Markdown(f"{_INTRODUCTION}\n\n{note}")
        key = gradio.Textbox(visible=False)
        with gradio.Row():
            with gradio.Column(scale=2, min_width=300):
                with gradio.Tab("Photo or video"):
                    file = gradio.File(label="Photo or video", file_types=["image", "video"], height=180)
                with gradio.Tab("Camera"):
                    camera = gradio.Image(label="Camera", sources=["webcam"], type="filepath", image_mode=None)
                example_button = gradio.Button("Try an example (drawn faces)", size="sm")
                choices = [(_FINDERS.get(name, name), name) for name in answer.finders]
                finder = gradio.Radio(choices, value=choices[0][1], label="How faces are found", interactive=True)
                min_confidence = gradio.Slider(0, 1, 0, step=0.05, label="Name no expression below this probability")
                hide = gradio.Checkbox(label="Make faces unrecognisable")
                gradio.Markdown(_LIMITS)
            with gradio.Column(scale=3, min_width=300):
                result = gradio.HTML(_EMPTY, elem_id="answer", apply_default_css=False)
        responds: dict[str, Any] = {
            "fn": respond, "inputs": [key, min_confidence, hide, finder], "outputs": result, "queue": False,
            "api_visibility": "private",
        }  # fmt: skip
        for source, event in ((file, file.upload), (camera, camera.input)):
            # in the browser: the server gets the key alone, and the drop zone is empty again
            event(None, source, [key, source], js="file => [file && file.path, null]").success(**responds)
        example_button.click(None, None, key, js=f"() => {EXAMPLE!r}").success(**responds)
        # not release, which the keyboard does not fire
        for event in (min_confidence.change, hide.change, finder.change):
            event(**responds, trigger_mode="always_last")
    return page


def listen(port: int) -> socket.socket:
    """Return a socket that listens on 127.0.0.1; port 0 is any free one.

    Raises:
        InputError: the port is taken.
    """
    if not 0 <= port <= 65535:
        raise InputError(f"port={port} is not between 0 (any free one) and 65535")
    try:
        return socket.create_server(("127.0.0.1", port))
    except OSError as error:
        raise InputError(f"port={port} is taken or not to be had ({error.strerror}): give another one") from error


def serve(page: "gradio.Blocks", finders: Collection[str], uploads: Uploads, listening: socket.socket) -> None:
    """Serve the page until interrupted; ``finders`` are what may find its faces."""
    import gradio
    import uvicorn
    from fastapi import FastAPI

    from fer.demo.guard import Guard

    # Gradio's own fonts come from another host
    theme = gradio.themes.Default(
        primary_hue="blue", font=("system-ui", "sans-serif"), font_mono=("ui-monospace", "monospace")
    )
    # a reply's head and body are written one by one, and else the second waits 40 ms for the first
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    port, secret = listening.getsockname()[1], secrets.token_urlsafe()
    app = gradio.mount_gradio_app(
        FastAPI(openapi_url=None), page, f"/{secret}", server_name="127.0.0.1", server_port=port,
        max_file_size=MAX_BYTES, theme=theme, css=CSS, footer_links=[], run_history=False, ssr_mode=False,
        mcp_server=False,
    )  # fmt: skip
    functions = {function["id"] for function in page.config["dependencies"] if function["backend_fn"]}
    # h11 holds a request to its length; an answer that is being worked out is still given at the end
    config = uvicorn.Config(
        Guard(app, secret, port, functions, finders, uploads, MAX_BYTES), http="h11", ws="none", proxy_headers=False,
        log_level="warning", timeout_graceful_shutdown=30,
    )  # fmt: skip
    print(f"http://127.0.0.1:{port}/{secret}/ (stop with Ctrl-C)", flush=True)
    uvicorn.Server(config).run([listening])


def load(
    ckpt: str, device: str, faces: "str | OwnCallable" = "auto", **options: Any
) -> "tuple[dict[str, BasePredictor], Explainer | None, str]":
    """Open a checkpoint with ``options`` of `open_predictor`, and what can find faces here; the first is ``faces``.

    Returns also the explainer, None where the network has no heat maps, and what must be said.

    Raises:
        InputError: whatever `open_predictor` refuses.
    """
    from fer.api import open_predictor

    first, explainer = open_predictor(ckpt, faces, device=device, **options), None
    notes = [introduce(ckpt, first.network.name, bool(options.get("tta")))]
    if first.network.drawn:
        notes.append(_DRAWN)
    try:
        from fer.prediction.gradcam import Explainer

        explainer = Explainer.load(ckpt, device=device)
    except InputError as error:
        notes.append(f"There are no heat maps: {error}.")
    return _finders(first, faces, options.get("min_size")), explainer, "\n\n".join(notes)


def _finders(first: "BasePredictor", faces: "str | OwnCallable", min_size: int | None) -> "dict[str, BasePredictor]":
    """Return predictors with the network of the first, by what finds their faces; nothing is fetched for them."""
    from fer.prediction import yunet
    from fer.prediction.detectors import MIN_SIZE, open_detector
    from fer.prediction.predictor import FacePredictor

    if not isinstance(first, FacePredictor):
        return {first.found_by: first}
    name = "your own" if callable(faces) else faces
    if name == "auto":
        name = "yunet" if isinstance(first.detector, yunet.YuNetDetector) else "haar"
    found: dict[str, BasePredictor] = {name: first}
    for other in ("yunet", "haar", "whole"):
        if other not in found and (other != "yunet" or yunet.at_hand()):
            found[other] = FacePredictor(first.network, open_detector(other, None, min_size or MIN_SIZE))
    return found


def run(ckpt: str, faces: dict[str, Any], device: str, port: int, **options: Any) -> None:
    """Serve the page for a checkpoint until Ctrl-C or SIGTERM; ``faces`` are checked keys of conf/faces,
    ``options`` others of `open_predictor`.

    Raises:
        InputError: the port is taken, Gradio is not installed, or whatever `load` refuses.
    """
    from fer.api import detector_arguments

    # SIGTERM ends the page as Ctrl-C does, and the private folder with it
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with listen(port) as listening, TemporaryDirectory(prefix="fer-demo-") as folder:
            predictors, explainer, note = load(ckpt, device, **detector_arguments(faces), **options)
            print(f"faces: {next(iter(predictors.values())).found_by}")
            # both are read when Gradio is imported
            os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"}
            try:
                import gradio  # noqa: F401
            except ImportError as error:
                raise InputError('the page needs Gradio: pip install ".[demo]" in the checkout') from error
            uploads = Uploads(MAX_HELD, FORGET, {EXAMPLE: example()})
            page = build_page(Answerer(predictors, explainer, Path(folder)), uploads, note)
            serve(page, predictors, uploads, listening)
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)
