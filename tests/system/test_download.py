"""Addresses fetched from a server of this machine, which may do anything."""

import base64
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from fer.errors import InputError
from fer.system import download as module
from fer.system.download import download


@pytest.fixture
def server():
    """Return a function that serves ``answer(handler)`` at an address."""
    servers = []

    def serve(answer):
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                answer(self)

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"127.0.0.1:{server.server_port}"

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def sends(content, status=200, **headers):
    def answer(handler):
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)

    return answer


def test_what_an_address_gives_also_behind_a_redirect(server):
    place = server(sends(b"x" * 100_000))
    assert download(f"http://{place}/a b/ü.jpg?c=[d]") == b"x" * 100_000
    there = server(sends(b"", 302, Location=f"http://{place}/"))
    assert download(f"http://{there}/") == b"x" * 100_000


@pytest.mark.parametrize("elsewhere", ["file:///etc/hostname", "ftp://127.0.0.1/x", "data:text/plain,x"])
def test_a_redirect_leads_nowhere_but_to_the_web(server, elsewhere):
    place = server(sends(b"", 302, Location=elsewhere))
    with pytest.raises(InputError, match=r"^http://127.0.0.1:\d+/: cannot be fetched \([^\n]*\)$"):
        download(f"http://{place}/")


def test_a_password_is_given_to_its_host_alone_and_not_written_down(server):
    seen = {}

    def asked(name, answer):
        def answers(handler):
            seen[name] = handler.headers.get("Authorization")
            answer(handler)

        return answers

    second = server(asked("second", sends(b"", 404)))
    first = server(asked("first", sends(b"", 302, Location=f"http://{second}/")))
    with pytest.raises(InputError, match=r"^http://127.0.0.1:\d+/: cannot be fetched \(HTTP Error 404: Not Found\)$"):
        download(f"http://me:p%40ss@{first}/")
    assert seen == {"first": f"Basic {base64.b64encode(b'me:p@ss').decode()}", "second": None}


def test_too_large_too_slow_too_short_and_silent(server, monkeypatch):
    def endless(handler):
        handler.send_response(200)
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b"x" * 1000)
                time.sleep(0.01)
        except OSError:
            return

    def short(handler):
        handler.send_response(200)
        handler.send_header("Content-Length", "1000")
        handler.end_headers()
        handler.wfile.write(b"x" * 10)

    place = server(endless)
    with pytest.raises(InputError, match=r"more than 5,000 bytes; download it and give the file$"):
        download(f"http://{place}/", most_bytes=5000)
    with pytest.raises(InputError, match=r"not all of it came within 0 seconds; download it"):
        download(f"http://{place}/", seconds=0.1)
    with pytest.raises(InputError, match=r"more than 99 bytes"):
        download(f"http://{server(sends(b'x' * 100))}/", most_bytes=99)
    with pytest.raises(InputError, match=r"ends 990 bytes too early$"):
        download(f"http://{server(short)}/")
    monkeypatch.setattr(module, "SILENCE", 0.2)
    with pytest.raises(InputError, match=r"cannot be fetched \(.*timed out\)$"):
        download(f"http://{server(lambda handler: time.sleep(1))}/")


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/x", "http://", "http://[x/", "http://127.0.0.1:99999/"])
def test_no_such_address_is_one_line(address):
    with pytest.raises(InputError, match=r"cannot be fetched \([^\n]+\)$"):
        download(address)
