"""Messages from outside of every page: ``pagebus.flet.hub_of(main)``, on each version of Flet."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from textwrap import dedent
from typing import Any
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest

from environments import PROGRAMS, ROOT
from flet_servers import Serve, Server
from flet_sessions import DesktopSession, JsonSession, WebSession, visitors
from test_docs import examples_of

OUTSIDE = PROGRAMS / "outside.py"
NO_PAGE = "LookupError: no page of main is open yet, so it has no hub"
NO_APP = (
    "LookupError: main must be a function that a Flet app of this process begins with, as in"
    " flet.fastapi.app(main), and none begins with "
)
NOT_INSTALLED = (
    "pagebus was not installed when Flet made it: call pagebus.flet.install() before Flet starts,"
    " or start the program with `pagebus run`"
)

# What the command `uvicorn` does with the example of the docs, but for its exit status.
SERVED = """
import os, signal, sys, uvicorn

signal.signal(signal.SIGTERM, lambda *_: sys.exit())
uvicorn.run(app, port=int(os.environ["FLET_SERVER_PORT"]), log_level="error")
"""

Visit = Callable[[Server], AbstractAsyncContextManager[list[Any]]]


@pytest.fixture
def visit(any_flet: str, flet_0_28: str) -> Visit:
    """Open a page of a program in a session of this version of Flet."""
    kind = JsonSession if any_flet == flet_0_28 else WebSession
    return lambda server: visitors(kind, server.port, 1)


def post(server: Server, path: str, text: str) -> Any:
    request = Request(f"{server.url}/{path}?text={quote(text)}", method="POST")
    with urlopen(request, timeout=60) as response:
        return json.loads(response.read())


# ---- a web server -------------------------------------------------------------------------------


def test_an_endpoint_of_the_same_server_writes_on_an_open_page(
    any_flet: str, serve: Serve, visit: Visit
) -> None:
    server = serve(any_flet, OUTSIDE)

    async def watch() -> None:
        async with visit(server) as [page]:
            await page.reads("ready")
            for path in ("say", "say_from_a_worker"):
                assert await asyncio.to_thread(post, server, path, f"from {path}") == "sent"
                await page.reads(f"from {path}")
                await page.reads(f"from {path}, async")

    asyncio.run(watch())


def test_a_hub_that_an_endpoint_asked_for_first_is_that_of_the_pages(
    any_flet: str, serve: Serve, visit: Visit
) -> None:
    server = serve(any_flet, OUTSIDE)
    assert post(server, "say_from_a_worker", "too early") == NO_PAGE
    assert post(server, "say", "nobody hears it") == "sent"

    async def watch() -> None:
        async with visit(server) as [page]:
            await page.reads("ready")
            assert await asyncio.to_thread(post, server, "say", "hello") == "sent"
            await page.reads("hello")
            await page.reads("hello, async")
            assert "nobody hears it" not in page.texts

    asyncio.run(watch())


def test_an_endpoint_that_names_a_function_of_no_app_is_told_so_and_makes_no_hub(
    any_flet: str, serve: Serve, visit: Visit
) -> None:
    server = serve(any_flet, OUTSIDE)
    refused = [NO_APP + "print", NO_APP + "say_to_no_app.<locals>.<lambda>"]
    assert post(server, "say_to_no_app", "who hears it?") == [*refused, 0]

    async def watch() -> None:
        async with visit(server) as [page]:
            await page.reads("ready")
            answer = await asyncio.to_thread(post, server, "say_to_no_app", "who hears it?")
            assert answer == [*refused, 1]

    asyncio.run(watch())


@pytest.mark.parametrize("way", ["thread", "loop"])
def test_a_thread_is_told_that_no_page_is_open_and_writes_on_the_first_one(
    any_flet: str, serve: Serve, visit: Visit, way: str
) -> None:
    server = serve(any_flet, OUTSIDE)
    assert server.ask(f"{way}: too early") == NO_PAGE

    async def watch() -> None:
        async with visit(server) as [page]:
            await page.reads("ready")
            assert server.ask(f"{way}: 21 degrees") == "sent"
            await page.reads("21 degrees")
            await page.reads("21 degrees, async")

    asyncio.run(watch())


def test_without_the_installation_everybody_is_told_so(
    any_flet: str, serve: Serve, visit: Visit
) -> None:
    server = serve(any_flet, OUTSIDE, "own")
    would_be = f"RuntimeError: this app's hub would be Flet's own; {NOT_INSTALLED}"
    assert post(server, "say", "hello") == would_be

    async def watch() -> None:
        async with visit(server) as [page]:
            await page.reads(
                "page must be a page on a pagebus hub, not 'Page' on Flet's own; " + NOT_INSTALLED
            )
            is_own = f"RuntimeError: this app's hub is Flet's own; {NOT_INSTALLED}"
            assert await asyncio.to_thread(post, server, "say", "hello") == is_own
            assert server.ask("thread: hello") == is_own

    asyncio.run(watch())


def test_the_example_of_the_docs_shows_what_is_posted_and_measured(
    flet_1_0: str, serve: Serve, tmp_path: Path
) -> None:
    [example] = [
        example for example in examples_of(ROOT / "docs" / "outside.md") if "hub_of" in example.code
    ]
    program = example.save(tmp_path)
    with program.open("a", encoding="utf-8") as file:
        file.write(SERVED)
    server = serve(flet_1_0, program)

    async def watch() -> None:
        async with visitors(WebSession, server.port, 1) as [page]:
            await page.reads("20 degrees")
            await asyncio.to_thread(post, server, "say", "hello")
            await page.reads("hello")

    asyncio.run(watch())


# ---- the desktop --------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="pretends to have a display")
def test_a_thread_writes_on_the_page_of_a_desktop_app(
    flet_1_0: str, serve: Serve, tmp_path: Path
) -> None:
    program = tmp_path / "app.py"
    program.write_text(
        dedent("""
            import json, sys, threading
            import flet as ft
            import pagebus.flet

            def main(page):
                page.pubsub.subscribe(lambda line: page.add(ft.Text(line)))
                page.add(ft.Text("ready"))

            def hardware():
                for line in sys.stdin:
                    pagebus.flet.hub_of(main).send_all(line.rstrip())
                    print(json.dumps("sent"))

            threading.Thread(target=hardware, daemon=True).start()
            ft.run(main)
        """)
    )
    settings = {"FLET_FORCE_WEB_SERVER": "", "FLET_DISPLAY_URL_PREFIX": "at", "DISPLAY": ":0"}
    server = serve(flet_1_0, "-m", "pagebus", "run", program, **settings)
    assert server.read_line().startswith("at tcp://")

    async def watch() -> None:
        async with visitors(DesktopSession, server.port, 1) as [page]:
            await page.reads("ready")
            assert server.ask("21 degrees") == "sent"
            await page.reads("21 degrees")

    asyncio.run(watch())


def run(python: str, program: str) -> None:
    """Run a program to its end."""
    result = subprocess.run([python, "-c", dedent(program)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_the_hub_of_a_desktop_app_is_that_of_its_server(any_flet: str) -> None:
    run(
        any_flet,
        """
        import asyncio, gc, importlib
        import flet
        import pagebus.flet

        def main(page): ...

        def found():
            try:
                return pagebus.flet.hub_of(main)
            except LookupError:
                return None

        old = flet.version.__dict__.get("version") == "0.28.3"
        server_module = "flet.flet_socket_server" if old else "flet.messaging.flet_socket_server"
        server_class = importlib.import_module(server_module).FletSocketServer
        pagebus.flet.install()

        async def serve():
            assert found() is None
            server = server_class(loop=asyncio.get_running_loop(), on_session_created=None)
            another = flet.PubSubHub()
            assert found() is server.pubsubhub is not another
            newer = server_class(loop=asyncio.get_running_loop(), on_session_created=None)
            assert found() is newer.pubsubhub

        asyncio.run(serve())
        gc.collect()
        assert found() is None
        """,
    )


# ---- refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize("main", ["None", "'main'", "unhashable"])
def test_what_flet_cannot_start_is_refused(any_flet: str, main: str) -> None:
    run(
        any_flet,
        f"""
        import pagebus.flet

        class Unhashable:
            __hash__ = None
            def __call__(self, page): ...

        unhashable = Unhashable()
        try:
            pagebus.flet.hub_of({main})
        except TypeError as error:
            found = f"not '{{type({main}).__name__}}'"
            assert str(error) == f"main must be the function that Flet starts, {{found}}", error
        else:
            raise AssertionError("no error")
        """,
    )


def test_what_is_no_page_is_refused(flet_1_0: str) -> None:
    run(
        flet_1_0,
        """
        import pagebus.flet

        try:
            pagebus.flet.pubsub("a page")
        except TypeError as error:
            assert str(error) == "page must be a Flet page, not 'str'", error
        else:
            raise AssertionError("no error")
        """,
    )
