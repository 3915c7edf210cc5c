"""Servers that fork: gunicorn and uvicorn, with an app that makes its hub before they do."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs Unix")

APP = """
import asyncio, json, os
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from pagebus import PubSubHub

inline, workers, on_loop = PubSubHub(), PubSubHub(executor=ThreadPoolExecutor(2)), PubSubHub()
got, by_workers, by_loop = [], SimpleQueue(), None
inline.subscribe("ann", got.append)
workers.subscribe("ann", by_workers.put)
# The parent has used what the children inherit: its executor has a thread.
inline.send_all("before")
workers.send_all("before")
assert (got.pop(), by_workers.get(timeout=20)) == ("before", "before")

def use(path):
    inline.send_all(path)
    workers.send_all(path)
    came = [got.pop(), by_workers.get(timeout=20)]
    return [*came, len(got), by_workers.qsize()]

def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps([os.getpid(), use(environ["PATH_INFO"])]).encode()]

async def asgi(scope, receive, send):
    global by_loop
    if scope["type"] != "http":
        return
    if by_loop is None:
        by_loop = asyncio.Queue()
        async def handler(message):
            await asyncio.sleep(0)
            by_loop.put_nowait(message)
        on_loop.subscribe("ann", handler)
    path = scope["path"]
    on_loop.send_all(path)
    told = [*use(path), await asyncio.wait_for(by_loop.get(), 20), by_loop.qsize()]
    body = json.dumps([os.getpid(), told]).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
"""

GUNICORN = ["gunicorn", "--bind", "fd://{fd}", "--workers", "2"]
UVICORN = ["uvicorn", "--fd", "{fd}", "--workers", "2"]

SERVERS = {
    "gunicorn": [*GUNICORN, "--preload", "app:wsgi"],
    "gunicorn with threads": [*GUNICORN, "--preload", "--threads", "4", "app:wsgi"],
    "gunicorn that loads the app in each worker": [*GUNICORN, "app:wsgi"],
    "gunicorn with uvicorn's workers": [
        *[*GUNICORN, "--preload"],
        *["--worker-class", "uvicorn_worker.UvicornWorker", "app:asgi"],
    ],
    "uvicorn": [*UVICORN, "app:asgi"],
}


@contextlib.contextmanager
def serving(folder: Path, command: list[str]) -> Iterator[str]:
    """Start a server on a socket that listens already, and give its address."""
    (folder / "app.py").write_text(APP)
    log = folder / "log"
    with log.open("w") as output, socket.create_server(("127.0.0.1", 0)) as listener:
        fd, port = listener.fileno(), listener.getsockname()[1]
        server = subprocess.Popen(
            [sys.executable, "-m", *(word.replace("{fd}", str(fd)) for word in command)],
            cwd=folder,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=[fd],
        )
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            status = server.wait(30)
    assert status in (0, -signal.SIGTERM), log.read_text()
    assert "Traceback" not in log.read_text(), log.read_text()


@pytest.mark.parametrize("command", SERVERS.values(), ids=SERVERS)
def test_each_worker_delivers_its_own_messages_once(tmp_path: Path, command: list[str]):
    has_loop = "app:asgi" in command
    workers = set()

    with serving(tmp_path, command) as address:
        number = 0
        while len(workers) < 2 or number < 40:
            path = f"/message-{number}"
            number += 1
            with urllib.request.urlopen(address + path, timeout=30) as response:
                worker, told = json.load(response)
            assert told == [path, path, 0, 0] + ([path, 0] if has_loop else [])
            workers.add(worker)

    assert len(workers) == 2
