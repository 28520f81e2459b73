"""What an http:// or https:// address gives, within limits of size and time."""

import http.client
import re
import time
import urllib.request

from fer.errors import InputError
from fer.system.addresses import without_password

#: Seconds without an answer after which an address is given up.
SILENCE = 20.0


def is_web_address(text: str) -> bool:
    """Say whether a text is an http:// or https:// address."""
    return re.match("https?://", text, re.IGNORECASE) is not None


def download(address: str, most_bytes: int = 200_000_000, seconds: float = 120.0) -> bytes:
    """Return what an address gives.

    Raises:
        InputError: it gives nothing, more than ``most_bytes``, or not all of it within ``seconds``.
    """
    shown = without_password(address)
    try:
        request = urllib.request.Request(address, headers={"User-Agent": "fer"})
        end, content = time.monotonic() + seconds, bytearray()
        with urllib.request.urlopen(request, timeout=SILENCE) as answer:
            while part := answer.read1(1 << 16):
                content += part
                if len(content) > most_bytes:
                    raise InputError(f"{shown}: more than {most_bytes:,} bytes; download it and give the file")
                if time.monotonic() > end:
                    raise InputError(f"{shown}: not all of it came within {seconds:.0f} seconds; download it")
        return bytes(content)
    except InputError:
        raise
    except (OSError, ValueError, http.client.HTTPException) as error:
        said = " ".join(without_password(str(error)).split())[:200]
        raise InputError(f"{shown}: cannot be fetched ({said})") from error
