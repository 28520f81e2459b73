"""Photos read ahead of their turn, and pictures put together in batches that fit the memory."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from fer.data.photos import read_photo
from fer.data.source import PhotoLimits
from fer.prediction.sources import Medium

Item = TypeVar("Item")
Done = TypeVar("Done")

#: Most photos that are decoded before their turn.
AHEAD = 2 * (os.cpu_count() or 1)
#: A batch ends early at so many pixels, about 150 MB, so that big photos do not add up.
_BATCH_PIXELS = 50_000_000


def ahead(
    items: Iterable[Item], work: Callable[[Item], Done], submit: Callable[..., Future], most: int
) -> Iterator[tuple[Item, Done]]:
    """Yield items in their order with what ``work`` makes of them, while threads do ``most`` more."""
    waiting: deque[tuple[Item, Future]] = deque()
    for item in items:
        waiting.append((item, submit(work, item)))
        if len(waiting) > most:
            first, future = waiting.popleft()
            yield first, future.result()
    for item, future in waiting:
        yield item, future.result()


def read_ahead(
    media: Sequence[Medium], pool: ThreadPoolExecutor, cut: list[str]
) -> Iterator[tuple[Medium, np.ndarray | str]]:
    """Yield photos in their order, or why they can't be read, while a few more are decoded.

    Files of JPEGs that end early, and are read as far as they go, are added to ``cut``.
    """
    return ahead(media, lambda medium: read_photo(medium.file, "rgb", PhotoLimits(), cut), pool.submit, AHEAD)


def chunks(items: Iterable[Any], size: int, picture: Callable[[Any], Any]) -> Iterator[list[Any]]:
    """Yield lists of at most ``size`` items, fewer where their pictures have _BATCH_PIXELS together."""
    chunk: list[Any] = []
    pixels = 0
    for item in items:
        chunk.append(item)
        pixels += getattr(picture(item), "size", 0) // 3
        if len(chunk) >= size or pixels >= _BATCH_PIXELS:
            yield chunk
            chunk, pixels = [], 0
    if chunk:
        yield chunk
