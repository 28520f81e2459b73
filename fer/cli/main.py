"""The command ``fer``: its first word chooses what `fer.cli` holds under that name."""

import sys
from importlib import import_module
from importlib.metadata import version

from fer.cli.errors import ends_quietly
from fer.errors import closest, printable
from fer.system.command import COMMANDS

USAGE = f"""Facial-expression recognition: from raw AffectNet and FER2013 files to named faces in any photo or video.

  fer COMMAND [KEY=VALUE ...]

To begin with:

  fer predict source=photo.jpg ckpt=fer2013_vgg9     name the faces of a photo, by the net that comes with the program
  fer demo ckpt=fer2013_vgg9                         the same in the browser
  fer prepare data=folder data.raw=my_faces          your own photos by class, my_faces/happy/1.jpg ...
  fer train data=folder init=fer2013_vgg9 model=vgg9 optimizer.lr=0.02 schedule=cosine trainer.max_epochs=20
                                                     ... to a net of your own

Commands:

{"".join(f"  {name:10}{line}{chr(10)}" for name, line in COMMANDS.items())}
`fer COMMAND --help` lists its choices and keys. Options of Hydra work too: -m for a sweep, --config-dir DIR for groups
of your own, --cfg job to see the config and stop.
"""


@ends_quietly
def main() -> None:
    """Run the command that the first argument names; exit code 2 where there is none of that name."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in ("", "-h", "--help", "help"):
        print(USAGE, end="", file=sys.stdout if name else sys.stderr)
        sys.exit(0 if name else 2)
    if name == "--version":
        print(f"fer {version('fer-lightning')}")
        return
    if name not in COMMANDS:
        print(
            f"error: there is no command {printable(name)}{closest(name, COMMANDS)}; see `fer --help`", file=sys.stderr
        )
        sys.exit(2)
    import_module(f"fer.cli.{name}").main((name,))
