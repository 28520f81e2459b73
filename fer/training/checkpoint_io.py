"""Lightning's checkpoints, written whole or not at all."""

import io
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from fer.system.files import replacing


class WholeCheckpoints(TorchCheckpointIO):
    """Writes Lightning's checkpoints so that a full disk or a killed process leaves the one before.

    Lightning's own are written in the folder for temporary files and moved, which from one file system to another is a
    copy onto the old one.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        content = io.BytesIO()
        # not into the file, whose errors torch would report as its own
        torch.save(checkpoint, content)
        with replacing(Path(path)) as temporary:
            temporary.write_bytes(content.getbuffer())
