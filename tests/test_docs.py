"""The README and the docs: their Python examples run, and their links lead somewhere."""

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

import pagebus
from flet_servers import Server
from flet_sessions import WebSession, visitors

pytestmark = pytest.mark.thread_unsafe(reason="it is about other processes")

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
PAGES = [README, ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]

FENCE = re.compile(r"^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)
# Stands directly above an example that a test cannot run, and says why.
NOT_EXECUTED = re.compile(r"<!-- not executed: .+ -->\n+\Z")
# A page of an app with several.
ROUTE = re.compile(r'page\.route == "(.+?)"')
LINK = re.compile(r"\[[^\]]*\]\((?P<target>[^)\s]+)\)")

# What a Flet program sends: a change of the page, and that it has crashed.
PATCH, CRASH = 2, 6


@dataclass(frozen=True)
class Example:
    """A block of Python on a page."""

    page: Path
    line: int
    code: str
    is_executed: bool

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def is_app(self) -> bool:
        """Whether it serves a Flet app, and so runs until it is ended."""
        return "ft.run(" in self.code

    def save(self, folder: Path) -> Path:
        """Write the example to a program whose line numbers are those of the page."""
        program = folder / "example.py"
        program.write_text("\n" * self.line + self.code, encoding="utf-8")
        return program


def examples_of(page: Path) -> list[Example]:
    text = page.read_text(encoding="utf-8")
    return [
        Example(
            page,
            line=text.count("\n", 0, block.start()) + 1,
            code=block["code"],
            is_executed=not NOT_EXECUTED.search(text, 0, block.start()),
        )
        for block in FENCE.finditer(text)
        if block["language"] == "python"
    ]


EXAMPLES = [example for page in PAGES for example in examples_of(page)]
SCRIPTS = [example for example in EXAMPLES if example.is_executed and not example.is_app]
APPS = [example for example in EXAMPLES if example.is_executed and example.is_app]


@contextmanager
def serving(app: Example, folder: Path) -> Iterator[Server]:
    """The app while it runs."""
    program = [sys.executable, str(app.save(folder))]
    server = Server(program, folder / "server.log", {})
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.stop()


def is_well(server: Server) -> bool:
    """Whether an app has logged no traceback; to be asked while its visitors are there.

    To one who is just leaving Flet may still send something, and logs that it cannot.
    """
    return "Traceback" not in server.log()


@pytest.mark.parametrize("example", EXAMPLES, ids=str)
def test_an_example_is_python(example: Example) -> None:
    compile("\n" * example.line + example.code, str(example.page), "exec")


@pytest.mark.parametrize("example", SCRIPTS, ids=str)
def test_an_example_does_what_it_asserts(example: Example, tmp_path: Path) -> None:
    program = [sys.executable, "-W", "error", str(example.save(tmp_path))]
    run = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("example", APPS, ids=str)
def test_an_example_app_opens_each_of_its_pages(example: Example, tmp_path: Path) -> None:
    async def visit(server: Server, route: str) -> None:
        async with visitors(WebSession, server.port, 1, route) as [visitor]:
            action = None
            while action != PATCH:
                action, body = await visitor.receive()
                assert action != CRASH, body
            assert is_well(server), server.log()

    for route in ("/", *ROUTE.findall(example.code)):
        with serving(example, tmp_path) as server:
            asyncio.run(visit(server, route))


def test_the_monitor_on_a_page_of_your_own_shows_those_who_are_there(tmp_path: Path) -> None:
    async def watch(server: Server) -> None:
        async with visitors(WebSession, server.port, 1, "/monitor") as [monitor]:
            await monitor.reads("Who is here")
            async with visitors(WebSession, server.port, 1):
                await monitor.reads("2")
                assert is_well(server), server.log()

    [app] = [example for example in APPS if "Monitor(" in example.code]
    with serving(app, tmp_path) as server:
        asyncio.run(watch(server))


@pytest.mark.not_in_devmode(reason="Flet puts into an asyncio.Queue from a thread")
def test_two_visitors_of_the_readmes_app_read_each_other(tmp_path: Path) -> None:
    async def talk(server: Server) -> None:
        async with visitors(WebSession, server.port, 2) as [ada, bob]:
            await bob.control("Say something")
            await ada.fill("Say something", "hello")
            await ada.trigger(await ada.control("Say something"), "submit")
            await bob.reads("hello")
            assert is_well(server), server.log()

    [app] = [example for example in APPS if example.page == README]
    with serving(app, tmp_path) as server:
        asyncio.run(talk(server))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(page: Path) -> None:
    prose = FENCE.sub("", page.read_text(encoding="utf-8"))
    targets = [link["target"].partition("#")[0] for link in LINK.finditer(prose)]
    files = [target for target in targets if target and "://" not in target]
    assert [file for file in files if not (page.parent / file).exists()] == []


def test_every_page_of_the_docs_is_in_their_index() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {link["target"] for link in LINK.finditer(index.read_text(encoding="utf-8"))}
    pages = {page.relative_to(index.parent).as_posix() for page in index.parent.rglob("*.md")}
    assert pages - linked == {"README.md"}


def test_the_readme_names_everything_that_the_package_offers() -> None:
    classes = [pagebus.PubSubHub, pagebus.PubSub, pagebus.Subscription, pagebus.Stats]
    members = {name for cls in classes for name in vars(cls) if not name.startswith("_")}
    names = members | set(pagebus.__all__) - {"__version__"}
    readme = README.read_text(encoding="utf-8")
    assert sorted(name for name in names if not re.search(rf"\b{name}\b", readme)) == []


def test_the_readme_asks_for_the_versions_that_the_manifests_ask_for() -> None:
    readme = README.read_text(encoding="utf-8")
    for manifest, pattern, program in [
        ("pyproject.toml", r'requires-python = ">=([\d.]+)"', "Python"),
        ("Cargo.toml", r'rust-version = "([\d.]+)"', "Rust"),
    ]:
        asked = re.search(pattern, (ROOT / manifest).read_text(encoding="utf-8"))
        assert asked
        assert f"{program} {asked[1]} or newer" in readme


def test_the_changelog_knows_this_version() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{pagebus.__version__}]" in changelog
