"""Raw data to a folder for the Darknet program: photos as they are or cropped faces, labels, lists, tables."""

import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
from tqdm import tqdm

from fer.darknet.formats.lists import Entry, count, settle_splits, write_lists, write_photos_csv
from fer.darknet.formats.photo_folder import LIST_ENDING, MARK, check_path, darknet_order, spell
from fer.darknet.formats.photos import Inspection, Photo, group_photos, inspect_photo, label_lines, write_upright
from fer.data.preparation.backends import local
from fer.data.preparation.code import code_of
from fer.data.preparation.prepare import writing_skipped
from fer.data.preparation.sources import open_source, photo_limits
from fer.data.preparation.stage import Stage
from fer.data.preparation.summary import Summary, count_reasons
from fer.data.source import BLOCK_ROWS, SPLITS, Skipped, Source
from fer.errors import InputError
from fer.system.files import put_folder_in_place, require_new_folder
from fer.system.words import amount

CROPS = ("photo", "face")
LINKS: dict[str, Callable[[str, Path], object]] = {"symlink": os.symlink, "copy": shutil.copyfile}


def export(
    data: Mapping[str, Any],
    out: Path,
    task: str,
    crop: str = "photo",
    link: str = "symlink",
    workers: int | None = None,
) -> Summary:
    """Write the folder ``out`` for the Darknet program's ``task``; goes on where a killed run stopped.

    A classifier gets each photo (``crop="photo"``) or each face as it is prepared for HDF5 (``crop="face"``). Rows that
    cannot be used are listed with the reason in ``<out>.skipped.csv``. Returns counts and notes, as ``prepare`` does.

    Raises:
        InputError: a wrong option, a path that the program would misread, raw data of the wrong kind or not there, or
            no usable photo at all.
    """
    if crop not in CROPS:
        raise InputError(f"crop={crop}: not one of {', '.join(CROPS)}")
    if link not in LINKS:
        raise InputError(f"link={link}: not one of {', '.join(LINKS)}")
    if task == "detector" and crop != "photo":
        raise InputError("crop=face leaves nothing to detect: use crop=photo, or format=darknet_classifier")
    require_new_folder(out)
    source = open_source(data)
    class_names = darknet_order(source.class_names)
    names = spell(class_names, task)
    check_path(out, task, names)
    out.parent.mkdir(parents=True, exist_ok=True)
    stage = Stage(out, {**source.fingerprint(), "code": code_of(source, data), "darknet": [task, crop, link]})
    with stage.kept():
        folder = stage.folder / "out"
        (folder / "backup").mkdir(parents=True, exist_ok=True)
        class_ids = [class_names.index(name) for name in source.class_names]
        workers = workers or os.cpu_count() or 1
        try:
            if crop == "face":
                entries, skipped = _write_faces(stage, source, folder, [names[i] for i in class_ids], workers)
                notes = stage.notes
            else:
                writer = _PhotoWriter(folder, data, task, link, names, class_ids)
                entries, skipped = writer.write(source, stage.folder / "photos.jsonl", workers)
                notes = writer.notes
        except KeyboardInterrupt:
            print(f"\ninterrupted; the same command goes on where this one stopped ({stage.folder})")
            raise
        listed = writing_skipped(out.with_name(out.name + ".skipped.csv"), skipped)
        reasons = dict(Counter(entry.reason for entry in skipped))
        if not entries:
            # what is amiss may be put right before the next run, which must then look at every photo again
            stage.remove()
            with listed:
                pass
            told = count_reasons(reasons) or "there are no rows"
            raise InputError(
                f"no usable photo in the raw files of data={data['name']}: {told}"
                + (f"; they are listed in {out}.skipped.csv" if reasons else "")
            )
        notes = [*source.notes, *notes, *settle_splits(entries)]
        lists = write_lists(folder, os.path.abspath(out), task, names, entries)
        write_photos_csv(folder, source.class_names, entries)
        drawn = "drawn" in source.names
        mark = {
            "task": task, "names": names, "class_names": class_names, "folder": os.path.abspath(out),
            "lists": {split: split + LIST_ENDING[task] for split in lists}, "photos": lists, "data": data["name"],
            "drawn": drawn, "crop": crop, "made_by": dict(data),
        }  # fmt: skip
        (folder / MARK).write_text(json.dumps(mark, indent=1) + "\n")
        with listed:
            put_folder_in_place(folder, out)
    stage.remove()
    return {
        "out": str(out), "counts": count(entries, source), "class_names": list(source.class_names),
        "skipped": reasons, "notes": notes, "drawn": drawn,
        "duplicates": {}, "photos": lists,
    }  # fmt: skip


class _PhotoWriter:
    """Links or copies photos and writes label files; what it saw of each photo is kept for a run that goes on."""

    def __init__(
        self, folder: Path, data: Mapping[str, Any], task: str, link: str, names: Sequence[str], class_ids: list[int]
    ) -> None:
        self._folder, self._data, self._task, self._names, self._class_ids = folder, data, task, names, class_ids
        self._link = LINKS[link]
        self._limits = photo_limits(data)
        self.notes: list[str] = []
        self._turned = 0

    def write(self, source: Source, progress: Path, workers: int) -> tuple[list[Entry], list[Skipped]]:
        """Write all photos of the source; ``progress`` is a file with one line for each block of them, in order.

        What is to be said of the photos is then in ``notes``.
        """
        reading = tqdm(
            total=100.0, desc="read rows", bar_format="{desc} {percentage:3.0f}%|{bar}| [{elapsed}<{remaining}]"
        )
        with reading:
            photos, skipped = group_photos(
                source, self._task, self._data["name"], lambda done: reading.update(100 * done - reading.n)
            )
            reading.update(100 - reading.n)
        entries: list[Entry] = []
        earlier = _read_progress(progress)
        starts = range(0, len(photos), BLOCK_ROWS)
        if earlier:
            print(f"going on with the {len(earlier)} blocks that an earlier run left in {progress.parent}")
        with (
            tqdm(total=len(photos), desc="photos", unit="photo") as bar,
            open(progress, "a") as file,
            ThreadPoolExecutor(workers) as pool,
        ):

            def take(start: int, inspections: list[Inspection]) -> None:
                for number, inspection in enumerate(inspections, start):
                    self._take(photos[number], number, inspection, entries, skipped)
                bar.update(len(inspections))

            for start, inspections in zip(starts, earlier, strict=False):
                take(start, inspections)
            rest = starts[len(earlier) :]
            try:
                for start, inspections in zip(
                    rest, pool.map(lambda at: self._write_block(photos, at), rest), strict=True
                ):
                    file.write(json.dumps(inspections) + "\n")
                    file.flush()
                    take(start, inspections)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        if self._turned:
            turned = amount(
                self._turned, "photo is turned by its EXIF orientation", "photos are turned by their EXIF orientation"
            )
            self.notes.append(f"{turned}: written upright, as PNG")
        return entries, skipped

    def _write_block(self, photos: list[Photo], start: int) -> list[Inspection]:
        inspections = []
        for number, photo in enumerate(photos[start : start + BLOCK_ROWS], start):
            inspections.append(inspection := self._inspect(photo))
            if isinstance(inspection, str):
                continue
            path = self._folder / self._name(number, photo, inspection[0])
            path.parent.mkdir(parents=True, exist_ok=True)
            if self._task == "detector":
                lines, _ = label_lines(photo, *inspection[1:3], self._class_ids, self._data["margin"])
                if not lines and photo.faces:
                    continue
                path.with_suffix(".txt").write_text("".join(f"{line}\n" for line in lines))
            path.unlink(missing_ok=True)
            if inspection[3]:
                write_upright(photo.file, self._limits, path)
                continue
            self._link(os.path.abspath(photo.file), path)
        return inspections

    def _inspect(self, photo: Photo) -> Inspection:
        inspection = inspect_photo(photo.file, self._limits)
        if (
            self._task == "classifier"
            and not isinstance(inspection, str)
            and len({label for label, _ in photo.faces}) > 1
        ):
            return "faces of several classes"
        return inspection

    def _name(self, number: int, photo: Photo, ending: str) -> str:
        label = f"_{self._names[self._class_ids[photo.faces[0][0]]]}" if self._task == "classifier" else ""
        return f"{_stem(number)}{label}{ending}"

    def _take(
        self, photo: Photo, number: int, inspection: Inspection, entries: list[Entry], skipped: list[Skipped]
    ) -> None:
        if isinstance(inspection, str):
            # one a face, as every other format counts them
            skipped += [Skipped(photo.source, photo.path, inspection)] * max(1, len(photo.faces))
            return
        labels = [label for label, _ in photo.faces[:1]]
        if self._task == "detector":
            lines, outside = label_lines(photo, *inspection[1:3], self._class_ids, self._data["margin"])
            labels = list(lines.values())
            skipped += [Skipped(photo.source, photo.path, "box outside the photo")] * outside
        if labels or not photo.faces:
            self._turned += inspection[3]
            entries.append(
                Entry(self._name(number, photo, inspection[0]), photo.source, photo.path, photo.splits, labels)
            )


def _stem(number: int) -> str:
    return f"photos/{number // 1000:03d}/{number:07d}"


def _read_progress(path: Path) -> list[list[Inspection]]:
    """Return the blocks of inspections that an earlier run left, and cut off a line that it did not finish."""
    if not path.exists():
        return []
    text = path.read_bytes()
    whole = text[: text.rfind(b"\n") + 1]
    os.truncate(path, len(whole))
    return [json.loads(line) for line in whole.splitlines()]


def _write_faces(
    stage: Stage, source: Source, folder: Path, spellings: Sequence[str], workers: int
) -> tuple[list[Entry], list[Skipped]]:
    """Write each prepared face as PNG; a row that stands in two splits is written once."""
    if stage.found:
        print(f"going on with the {stage.found} blocks that an earlier run left in {stage.folder}")
    stage.fill(source, local(workers))
    entries: list[Entry] = []
    written: dict[bytes, list[Entry]] = {}
    times: Counter[tuple[bytes, str]] = Counter()
    with tqdm(total=int(stage.counts.sum()), desc="write faces", unit="face") as bar:
        for faces in stage.blocks():
            for i, image in enumerate(faces.image):
                split, label = SPLITS[faces.split[i]], int(faces.label[i])
                facts = f"{faces.source[i]} {label} {faces.box[i].tolist()} {faces.path[i]}"
                key = hashlib.blake2b(facts.encode(errors="surrogatepass") + image.tobytes(), digest_size=16).digest()
                # the n-th such row of one split is the n-th of the other, as rows may be repeated within a split
                same, nth = written.setdefault(key, []), times[key, split]
                times[key, split] += 1
                if nth < len(same):
                    same[nth].splits = tuple(name for name in SPLITS if name in (*same[nth].splits, split))
                    continue
                file = f"{_stem(len(entries))}_{spellings[label]}.png"
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                pixels = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
                # not imwrite, which does not tell of a full disk
                (folder / file).write_bytes(cv2.imencode(".png", pixels)[1].tobytes())
                entries.append(Entry(file, source.names[faces.source[i]], faces.path[i], (split,), [label]))
                same.append(entries[-1])
            bar.update(len(faces.label))
    return entries, stage.skipped
