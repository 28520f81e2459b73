"""What was given to the page of `fer.demo`: held in memory, for a while, up to a limit over all of it together."""

import asyncio
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(slots=True)
class Upload:
    """What was dropped or photographed: its name and all its bytes."""

    name: str
    content: bytes


class Full(Exception):
    """There is no room for an upload."""


class Uploads:
    """Holds uploads under random keys for ``seconds`` each, and at most ``max_bytes`` bytes of them in all.

    Those of ``always`` stay, under their own keys.
    """

    def __init__(self, max_bytes: int, seconds: float, always: Mapping[str, Upload] = MappingProxyType({})) -> None:
        self._max_bytes, self._seconds, self._always = max_bytes, seconds, always
        self._uploads: dict[str, Upload] = {}
        self._coming = 0

    @contextmanager
    def room(self, size: int) -> Iterator[None]:
        """Keep room for ``size`` bytes that are on their way; the oldest uploads are given up for them.

        Raises:
            Full: what is on its way already leaves no room.
        """
        if self._coming + size > self._max_bytes:
            raise Full("too many uploads at once: try again")
        self._coming += size
        try:
            while self._coming + sum(len(upload.content) for upload in self._uploads.values()) > self._max_bytes:
                del self._uploads[next(iter(self._uploads))]
            yield
        finally:
            self._coming -= size

    def put(self, upload: Upload) -> str:
        """Return the key under which an upload is held; called inside `room` and an event loop."""
        key = secrets.token_urlsafe()
        self._uploads[key] = upload
        asyncio.get_running_loop().call_later(self._seconds, self._uploads.pop, key, None)
        return key

    def get(self, key: str) -> Upload | None:
        """Return what is held under a key, None if nothing is or no longer."""
        return self._always.get(key) or self._uploads.get(key)
