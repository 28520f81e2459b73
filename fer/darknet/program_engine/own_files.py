"""Photos for a program that follows links and looks for a photo's labels beside the file that it comes to."""

import os
import shutil
from pathlib import Path

from fer.darknet.formats.photo_folder import read_list
from fer.errors import InputError


def own_file(photo: Path, path: Path) -> None:
    """Make ``path`` another name of a photo's file, or a copy on another file system.

    Raises:
        InputError: neither can be made.
    """
    try:
        try:
            os.link(os.path.realpath(photo), path)
        except OSError:
            shutil.copyfile(photo, path)
    except OSError as error:
        raise InputError(f"{path}: cannot be made of {photo} ({error.strerror})") from error


def list_own_files(list_file: Path, folder: Path) -> None:
    """Put a list in the place of ``list_file`` whose photos are no links; those that were are in ``folder`` then.

    Raises:
        InputError: as `own_file`.
    """
    photos = read_list(list_file)
    lines = []
    for number, photo in enumerate(photos):
        if os.path.realpath(photo) != str(photo):
            folder.mkdir(exist_ok=True)
            own = folder.absolute() / f"{number:07d}{photo.suffix}"
            own.unlink(missing_ok=True)
            own_file(photo, own)
            shutil.copyfile(photo.with_suffix(".txt"), own.with_suffix(".txt"))
            photo = own
        lines.append(os.fsencode(photo) + b"\n")
    # it may be a link to the data set's own list
    list_file.unlink()
    list_file.write_bytes(b"".join(lines))
