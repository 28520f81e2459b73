"""A page to try a checkpoint on this computer: ``python -m fer.demo --ckpt runs/NAME/DATE/checkpoints/best.ckpt``.

It is served to this computer alone and asks no other host for anything. An upload is read into memory and deleted from
disk before its answer is worked out, and an answer is never a file.
"""

import argparse
import os
import signal
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from fer.demo.answer import CSS, MAX_SECONDS, Answerer, Upload
from fer.errors import InputError

if TYPE_CHECKING:
    import gradio

    from fer.prediction.base import BasePredictor
    from fer.prediction.gradcam import Explainer

#: Largest upload, in bytes.
MAX_BYTES = 50 * 2**20
#: Seconds after which an upload in memory is forgotten, and after which what a broken-off one left on disk is deleted.
FORGET, ABANDONED = 600, 60

_INTRODUCTION = """# What expression does the network see?
It names the expression that a face **shows**, as people who labelled photos perceived it; not what somebody feels.
For research and curiosity, not for decisions about people. Nothing leaves this computer and nothing is kept."""
_DRAWN = "**This network was trained on drawn faces.** What it says about real faces means nothing."
_LIMITS = f"At most {MAX_BYTES // 2**20} MB. Of a video the first {MAX_SECONDS} seconds, without sound."
_EMPTY = "<p>Drop a photo or a video, or use the camera: the answer appears here.</p>"


def take(payload: dict[str, Any] | None) -> tuple[Upload | None, None]:
    """Return an upload, now in memory and no longer on disk, and None to empty the drop zone that it came from.

    ``payload`` is Gradio's FileData, whose path Gradio has found to lie among the uploads.
    """
    if payload is None:
        return None, None
    path = Path(payload["path"])
    upload = Upload(payload.get("orig_name") or path.name, path.read_bytes())
    path.unlink()
    path.parent.rmdir()
    return upload, None


def build_page(answer: Answerer, note: str) -> "gradio.Blocks":
    """Return the page; ``note`` is said under its introduction."""
    import gradio

    def respond(upload: Upload | None, least: float, hide: bool) -> Any:
        return gradio.skip() if upload is None else answer(upload, least, hide)

    with gradio.Blocks(title="Facial expressions", analytics_enabled=False) as page:
        gradio.Markdown(f"{_INTRODUCTION}\n\n{note}")
        upload = gradio.State(None, time_to_live=FORGET)
        with gradio.Row():
            with gradio.Column(scale=2, min_width=300):
                with gradio.Tab("Photo or video"):
                    file = gradio.File(label="Photo or video", file_types=["image", "video"], height=180)
                with gradio.Tab("Camera"):
                    camera = gradio.Image(label="Camera", sources=["webcam"], type="filepath", image_mode=None)
                least = gradio.Slider(0, 1, 0, step=0.05, label="Name no expression below this probability")
                hide = gradio.Checkbox(label="Make faces unrecognisable")
                gradio.Markdown(_LIMITS)
            with gradio.Column(scale=3, min_width=300):
                result = gradio.HTML(_EMPTY, elem_id="answer", apply_default_css=False)
        responds = {"fn": respond, "inputs": [upload, least, hide], "outputs": result, "api_visibility": "private"}
        for source, given in ((file, file.upload), (camera, camera.input)):
            # without a queue, so that nothing waits on disk while another upload is answered
            given(
                take, source, [upload, source], preprocess=False, queue=False, show_progress="hidden",
                api_visibility="private",
            ).success(**responds)  # fmt: skip
        # not release, which the keyboard does not fire
        for changed in (least.change, hide.change):
            changed(**responds, trigger_mode="always_last")
    return page


def serve(page: "gradio.Blocks", port: int, folder: Path) -> None:
    """Serve the page on 127.0.0.1 until interrupted; uploads pass through ``folder``, which is kept clear.

    Raises:
        InputError: the port is taken.
    """
    import gradio

    # Gradio's own fonts come from another host
    theme = gradio.themes.Default(
        primary_hue="blue", font=("system-ui", "sans-serif"), font_mono=("ui-monospace", "monospace")
    )
    try:
        page.launch(
            server_name="127.0.0.1", server_port=port, share=False, prevent_thread_lock=True, max_file_size=MAX_BYTES,
            theme=theme, css=CSS, footer_links=[], run_history=False, ssr_mode=False, mcp_server=False, quiet=True,
        )  # fmt: skip
    except OSError as error:
        raise InputError(f"--port {port} is taken: give another one") from error
    try:
        print(f"http://127.0.0.1:{port} (stop with Ctrl-C)", flush=True)
        while True:
            time.sleep(5)
            for path in folder.rglob("*"):
                if path.is_file() and path.stat().st_mtime < time.time() - ABANDONED:
                    path.unlink(missing_ok=True)
    finally:
        page.close()


def load(ckpt: str, faces: str, faces_model: str | None, device: str) -> "tuple[BasePredictor, Explainer | None, str]":
    """Open a checkpoint; returns also the explainer, None where the network has no heat maps, and what must be said.

    Raises:
        InputError: whatever `open_predictor` refuses.
    """
    from fer.api import open_predictor

    predictor, explainer, notes = open_predictor(ckpt, faces, faces_model, device), None, []
    if predictor.network.drawn:
        notes.append(_DRAWN)
    try:
        from fer.prediction.gradcam import Explainer

        explainer = Explainer.load(ckpt, device=device)
    except InputError as error:
        notes.append(f"There are no heat maps: {error}.")
    return predictor, explainer, "\n\n".join(notes)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m fer.demo", description="Try a checkpoint in the browser.")
    parser.add_argument("--ckpt", required=True, help="a shipped network's name, .ckpt, .safetensors or .onnx")
    parser.add_argument("--port", type=int, default=7860, help="of 127.0.0.1 (default: 7860)")
    parser.add_argument("--faces", default="haar", help="the face detector: haar, yunet or whole (default: haar)")
    parser.add_argument("--faces-model", metavar="FILE", help="YuNet's .onnx file")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ... (default: auto)")
    given = parser.parse_args()
    # SIGTERM ends the page as Ctrl-C does, and the private folder with it
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with TemporaryDirectory(prefix="fer-demo-") as folder:
            uploads = Path(folder, "uploads")
            # both are read when Gradio is imported
            os.environ |= {"GRADIO_TEMP_DIR": str(uploads), "GRADIO_ANALYTICS_ENABLED": "False"}
            try:
                import gradio  # noqa: F401
            except ImportError as error:
                raise InputError('the page needs Gradio: pip install "fer-lightning[demo]"') from error
            predictor, explainer, note = load(given.ckpt, given.faces, given.faces_model, given.device)
            serve(build_page(Answerer(predictor, explainer, Path(folder)), note), given.port, uploads)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()
