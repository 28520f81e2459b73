"""What an http:// or https:// address gives, within limits of size and time."""

import base64
import http.client
import re
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from fer.errors import InputError
from fer.system.addresses import without_password

#: Seconds without an answer after which an address is given up.
SILENCE = 20.0

_PART = 1 << 16


def is_web_address(text: str) -> bool:
    """Say whether a text is an http:// or https:// address."""
    return re.match("https?://", text, re.IGNORECASE) is not None


@contextmanager
def opened(address: str) -> Iterator[http.client.HTTPResponse]:
    """Give the answer of an address, of which nothing but the headers has been read; redirects lead to http(s) alone.

    Raises:
        InputError: there is no such address, it does not answer, or answers with an error; also while it is read.
    """
    shown = without_password(address)
    try:
        with _opener().open(_request(address), timeout=SILENCE) as answer:
            yield answer
    except InputError:
        raise
    except (OSError, ValueError, http.client.HTTPException) as error:
        said = " ".join(without_password(str(error)).split())[:200]
        raise InputError(f"{shown}: cannot be fetched ({said})") from error


def download(address: str, most_bytes: int = 200_000_000, seconds: float = 120.0) -> bytes:
    """Return what an address gives.

    Raises:
        InputError: it gives nothing, more than ``most_bytes``, or not all of it within ``seconds``.
    """
    with opened(address) as answer:
        return b"".join(_parts(answer, address, most_bytes, seconds))


def save(answer: http.client.HTTPResponse, address: str, file: BinaryIO, most_bytes: int, seconds: float) -> None:
    """Write what is left of an answer to a file; limits and errors as in `download`."""
    for part in _parts(answer, address, most_bytes, seconds):
        file.write(part)


def _parts(answer: http.client.HTTPResponse, address: str, most_bytes: int, seconds: float) -> Iterator[bytes]:
    shown, end, count = without_password(address), time.monotonic() + seconds, 0
    too_large = InputError(f"{shown}: more than {most_bytes:,} bytes; download it and give the file")
    # what the server says, before anything is fetched for nothing
    if answer.length is not None and answer.length > most_bytes:
        raise too_large
    # one reading of the network at a time: many small parts may take as long as they like
    while part := answer.read1(_PART):
        count += len(part)
        if count > most_bytes:
            raise too_large
        if time.monotonic() > end:
            raise InputError(f"{shown}: not all of it came within {seconds:.0f} seconds; download it and give the file")
        yield part
    # read1 says nothing where the connection ends early
    if answer.length:
        raise InputError(f"{shown}: ends {answer.length:,} bytes too early")


def _opener() -> urllib.request.OpenerDirector:
    opener = urllib.request.OpenerDirector()
    # urllib's own would also open file:// and ftp://
    for handler in (
        urllib.request.ProxyHandler, urllib.request.HTTPHandler, urllib.request.HTTPSHandler,
        urllib.request.HTTPDefaultErrorHandler, urllib.request.HTTPErrorProcessor, urllib.request.HTTPRedirectHandler,
        urllib.request.UnknownHandler,
    ):  # fmt: skip
        opener.add_handler(handler())
    return opener


def _request(address: str) -> urllib.request.Request:
    parts = urllib.parse.urlsplit(address)
    login, _, place = parts.netloc.rpartition("@")
    # letters that only browsers take as they are
    path = urllib.parse.quote(parts.path, safe="/%:@!$&'()*+,;=~-._")
    query = urllib.parse.quote(parts.query, safe="/?%:@!$&'()*+,;=~-._[]")
    request = urllib.request.Request(
        urllib.parse.urlunsplit((parts.scheme.lower(), place, path, query, "")), headers={"User-Agent": "fer"}
    )
    if login:
        words = base64.b64encode(urllib.parse.unquote(login).encode()).decode()
        # not to whom it redirects
        request.add_unredirected_header("Authorization", f"Basic {words}")
    return request
