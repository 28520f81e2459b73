"""Where blocks are decoded: by threads of this machine, or by the workers of a Dask cluster."""

import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from pathlib import Path
from threading import Event, Semaphore
from typing import TYPE_CHECKING

import cv2
import PIL
from joblib import Parallel, delayed

from fer.data.preparation.stage import Backend, load_whole, save
from fer.data.source import Block, Faces
from fer.errors import InputError

if TYPE_CHECKING:
    from distributed import Client, Future

Decode = Callable[[Block], Faces]

#: Seconds that a scheduler has to answer, and that a cluster may be without any worker.
_ANSWER, _NO_WORKER = 10, 60


def local(workers: int | None = None) -> Backend:
    """Return the backend of this machine's threads, one a core unless told; OpenCV decodes without Python's lock."""
    workers = workers or os.cpu_count() or 1

    def decoded(decode: Decode, blocks: Iterable[tuple[Block, Path]]) -> Iterator[tuple[Block, Faces]]:
        # one block a task and few of them ahead, which keeps memory flat
        parallel = Parallel(
            workers, backend="threading", return_as="generator", pre_dispatch="2 * n_jobs", batch_size=1
        )
        under_way, ended = Semaphore(workers), Event()

        def work(block: Block, path: Path) -> tuple[Block, Faces]:
            with under_way:
                if ended.is_set():
                    raise CancelledError
                return _load_or_decode(decode, block, path)

        try:
            yield from parallel(delayed(work)(*item) for item in blocks)
        finally:
            # joblib does not wait for its threads, which could write into a folder that is being removed
            ended.set()
            for _ in range(workers):
                under_way.acquire()
            under_way.release(workers)

    return decoded


def _load_or_decode(decode: Decode, block: Block, path: Path) -> tuple[Block, Faces]:
    faces = load_whole(path)
    if faces is None:
        faces = decode(block)
        save(path, faces)
    return block, faces


def dask(address: str | None, raw: Sequence[Path], remedy: str) -> Backend:
    """Return the backend of the cluster whose scheduler is at ``address``, such as tcp://10.0.0.1:8786.

    Its workers read the ``raw`` files, which all of them must see under the paths that they have here, and send the
    faces back. A block whose worker dies is given to another one. ``remedy`` ends the message of a run that was cut.

    This is distributed's own client: joblib's Dask backend retries too, but fetches every result as soon as it is
    there, so faces would pile up in this machine's memory where the workers are faster than its disk.

    Raises:
        InputError: Dask is not installed or no address given; while blocks are decoded: no scheduler answers, it is
            lost, no worker is there, or one lacks the raw files or has other versions of OpenCV or Pillow.
    """
    try:
        import distributed
    except ImportError as error:
        raise InputError('prepare.backend=dask needs Dask: pip install ".[cluster]" in the checkout') from error
    if not address:
        raise InputError("prepare.backend=dask: say where its scheduler is with prepare.address=tcp://HOST:8786")
    where = f"prepare.address={address}"

    def decoded(decode: Decode, blocks: Iterable[tuple[Block, Path]]) -> Iterator[tuple[Block, Faces]]:
        try:
            # faces come straight from the workers, not through the scheduler
            client = distributed.Client(address, timeout=_ANSWER, set_as_default=False, direct_to_workers=True)
        except (OSError, ValueError) as error:
            raise InputError(f"{where}: no Dask scheduler answers there; start one with `dask scheduler`") from error
        with client:
            try:
                yield from _decoded(client, decode, blocks, [path.absolute() for path in raw])
            except _NoWorker as error:
                raise InputError(
                    f"{where}: it has no workers; start some with `dask worker {address}`; {remedy}"
                ) from error
            except distributed.KilledWorker as error:
                raise InputError(f"{where}: one block ended several workers, is their memory full? {remedy}") from error
            except Exception as error:
                # the client itself may learn later than its calls that nobody answers any more
                if client.status == "running" and not isinstance(error, distributed.comm.CommClosedError):
                    raise
                raise InputError(f"{where}: the scheduler was lost; {remedy}") from error

    return decoded


class _NoWorker(Exception):
    pass


def _decoded(
    client: "Client", decode: Decode, blocks: Iterable[tuple[Block, Path]], raw: list[Path]
) -> Iterator[tuple[Block, Faces]]:
    # The reader may be large (a table's rows), so it is a result of its own that workers keep. Not scatter: what was
    # scattered is lost with the worker that has it.
    reader = client.submit(_same, decode, pure=False)

    def submit(block: Block) -> "Future":
        return client.submit(_decode_there, reader, block, raw, _versions(), pure=False)

    running: deque[tuple[Block, Path, Future | None]] = deque()
    ahead = 2
    for block, path in blocks:
        running.append((block, path, None if path.is_file() else submit(block)))
        if len(running) > ahead:
            yield _first(client, running, submit)
            # workers come and go
            ahead = 2 * sum(client.nthreads().values())
    while running:
        yield _first(client, running, submit)


def _first(
    client: "Client", running: "deque[tuple[Block, Path, Future | None]]", submit: "Callable[[Block], Future]"
) -> tuple[Block, Faces]:
    """Return the first block that runs, with its faces, which are on disk then."""
    block, path, future = running.popleft()
    if future is None:
        if (faces := load_whole(path)) is not None:
            return block, faces
        future = submit(block)
    while True:
        try:
            faces = future.result(timeout=_NO_WORKER)
            break
        except TimeoutError:
            if not client.nthreads():
                raise _NoWorker from None
    save(path, faces)
    return block, faces


def _same(decode: Decode) -> Decode:
    return decode


def _versions() -> dict[str, str]:
    return {"OpenCV": cv2.__version__, "Pillow": PIL.__version__}


def _decode_there(decode: Decode, block: Block, raw: list[Path], versions: dict[str, str]) -> Faces:
    """Decode a block on a worker that sees the same files and would give the same pixels."""
    # without this every row of it would be skipped as a missing file
    for path in raw:
        if not path.exists():
            raise InputError(f"{path}: the Dask worker on {socket.gethostname()} does not see it; mount it there too")
    for name, version in _versions().items():
        if version != versions[name]:
            raise InputError(
                f"the Dask worker on {socket.gethostname()} has {name} {version}, not {versions[name]}, so its faces "
                "could differ; install the same version there"
            )
    return decode(block)
