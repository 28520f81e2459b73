"""Who may ask the page of `fer.demo`, what for, and how much they may send.

It stands before Gradio and lets through what the page itself asks for, nothing else. An upload ends here and goes on as
a key: Gradio never gets to see a file, and no path that a request names is ever opened.
"""

import asyncio
import json
import secrets
from collections.abc import Collection

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fer.demo.uploads import Full, Upload, Uploads

#: Most bytes of a question to the network, and of what surrounds the file in an upload.
MAX_QUESTION = 16 * 2**10
#: Characters of an upload's name that are kept, and of a path at most: file systems have none longer than 255.
_NAME, _LONGEST = 200, 250

_UPLOAD, _PROGRESS, _ASK = "/gradio_api/upload", "/gradio_api/upload_progress", "/gradio_api/run/predict"
_PAGES, _FOLDERS = ("", "/", "/theme.css", _PROGRESS), ("/assets/", "/static/", "/svelte/")


class Refused(Exception):
    """A request is not served; carries its status code and the reason."""


class Guard:
    """Serves ``app``, Gradio's below ``/secret``, on this computer's ``port`` to whoever knows the secret.

    The secret keeps other users of this computer out. Host and Origin keep other sites' pages out: one whose name leads
    to 127.0.0.1 still calls it by that name. ``functions`` are Gradio's numbers of those that answer, ``finders`` what
    may be asked to find the faces. A file may have ``largest`` bytes, and a request must be complete within
    ``seconds``.
    """

    def __init__(
        self, app: ASGIApp, secret: str, port: int, functions: set[int], finders: Collection[str], uploads: Uploads,
        largest: int, seconds: float = 60,
    ) -> None:  # fmt: skip
        self._app, self._secret, self._functions, self._uploads = app, secret, functions, uploads
        self._finders, self._largest, self._seconds = finders, largest, seconds
        names = {"127.0.0.1", "localhost"}
        # browsers don't say the port that http has anyway
        self._hosts = {f"{name}:{port}" for name in names} | (names if port == 80 else set())
        self._origins = {f"http://{host}" for host in self._hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        # Gradio would build its own address from what a proxy is said to have been asked; there is none
        scope = {**scope, "headers": [pair for pair in scope["headers"] if not pair[0].startswith(b"x-forwarded")]}
        request, serve = Request(scope, receive), self._app
        try:
            path = self._allowed(request)
            async with asyncio.timeout(self._seconds):
                if path == _UPLOAD:
                    serve = JSONResponse([await self._take(request)])
                elif path == _ASK:
                    receive = _replay(await self._question(request), receive)
                elif path == _PROGRESS:
                    # a browser on the same computer has sent its file before it can ask how far it is
                    serve = PlainTextResponse('data: {"msg": "done"}\n\n', media_type="text/event-stream")
        except Refused as refused:
            code, reason = refused.args
            serve = PlainTextResponse(f"{reason}\n", code)
        except TimeoutError:
            serve = PlainTextResponse(f"not complete within {self._seconds} seconds\n", 408)
        except ClientDisconnect:
            return
        await serve(scope, receive, send)

    def _allowed(self, request: Request) -> str:
        """Return the path below the secret."""
        hosts, origins = request.headers.getlist("host"), request.headers.getlist("origin")
        if len(hosts) != 1 or hosts[0].lower() not in self._hosts or not self._origins.issuperset(origins):
            raise Refused(403, "this page is for this computer's own browser")
        secret = request.scope["path"].removeprefix("/").partition("/")[0]
        if not secrets.compare_digest(secret.encode(), self._secret.encode()):
            raise Refused(403, "open the whole address that `fer demo` printed")
        path = request.scope["path"].removeprefix(f"/{secret}")
        is_page = path in _PAGES or path.startswith(_FOLDERS) and len(path) < _LONGEST
        if request.method != ("GET" if is_page else "POST") or not (is_page or path in (_UPLOAD, _ASK)):
            raise Refused(404, "the page has no such part")
        return path

    async def _take(self, request: Request) -> str:
        """Return the key under which the one file of a form is now held."""
        size = _size(request, self._largest + MAX_QUESTION)
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            raise Refused(415, "an upload is a form")
        try:
            with self._uploads.room(size):
                parser = MultiPartParser(request.headers, request.stream(), max_files=1, max_fields=0)
                parser.spool_max_size = size  # nothing of it goes to disk
                form = await parser.parse()
                if not isinstance(file := form.get("files"), UploadFile):
                    raise Refused(400, "no file was sent")
                if (file.size or 0) > self._largest:
                    raise Refused(413, f"larger than {self._largest} bytes")
                return self._uploads.put(Upload((file.filename or "upload")[-_NAME:], await file.read()))
        except MultiPartException as error:
            raise Refused(400, error.message) from error
        except Full as error:
            raise Refused(503, str(error)) from error

    async def _question(self, request: Request) -> bytes:
        """Return a question that is made of what `build_page` asks with, so of no file and no session."""
        _size(request, MAX_QUESTION)
        try:
            question = json.loads(await request.body())
        except (ValueError, RecursionError):
            question = None
        match question:
            case {
                "data": [str() | None, int() | float() as min_confidence, bool(), str() as finder] as data,
                "fn_index": int() as function,
            }:
                if 0 <= min_confidence <= 1 and finder in self._finders and function in self._functions:
                    return json.dumps({"data": data, "fn_index": function}).encode()
        raise Refused(400, "not what the page asks")


def _size(request: Request, limit: int) -> int:
    """Return how many bytes a request says to bring, which h11 holds it to."""
    size = request.headers.get("content-length")
    if size is None or "transfer-encoding" in request.headers:
        raise Refused(411, "a request says its length")
    if int(size) > limit:
        raise Refused(413, f"larger than {limit} bytes")
    return int(size)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return ``receive`` for who shall read ``body`` instead of what has been read already."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay
