"""Two web servers, one chat: what links their hubs is a Redis server."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis_server import REDIS, RedisServer

from environments import ROOT
from flet_servers import Serve
from flet_windows import Look, Window

CHAT = ROOT / "examples" / "chat.py"


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A server of the test's own."""
    if REDIS is None:
        pytest.skip("missing: redis-server")
    server = RedisServer(tmp_path)
    yield server
    server.kill()


def say(window: Window, text: str) -> None:
    window.type("Message", text)
    window.click("Send")


@pytest.mark.browser
def test_a_chat_goes_on_over_two_servers_while_redis_starts_again(
    flet_1_0: str, serve: Serve, look: Look, redis: RedisServer
) -> None:
    windows = []
    for name in ("Ada", "Bob"):
        server = serve(flet_1_0, CHAT, PAGEBUS_LINK=redis.url)
        window = look(server.url, name)
        window.type("Your name", name)
        windows.append(window)
    ada, bob = windows
    say(ada, "Are you on the other server?")
    bob.reads("Are you on the other server?")
    say(bob, "Yes, I am.")
    ada.reads("Yes, I am.")
    redis.kill()
    say(ada, "Can you still read me?")
    redis.start()
    bob.reads("Can you still read me?")
    say(bob, "I can again.")
    for window in windows:
        window.reads("I can again.")
        window.picture("after-the-restart")


def test_what_is_no_link_is_said_on_the_command_line(flet_1_0: str, tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text("raise SystemExit('the program has started')")
    command = [flet_1_0, "-m", "pagebus", "run", "--link", "nowhere", str(app)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2
    assert result.stderr.startswith("pagebus: link cannot be used: ")


PRESENT = """
import asyncio, sys
from flet import PubSubHub
import pagebus.flet

try:
    pagebus.flet.install(presence=True)
except ValueError as error:
    print(error)
pagebus.flet.install(link=sys.argv[1], presence=True)
here, there = PubSubHub(), PubSubHub()
there.subscribe_topic("bob", "room/1", lambda topic, message: None)
here.subscribe_topic("ann", "room/1", lambda topic, message: None)
came = []
here.subscribe_presence("ann", "room/1", lambda presence: came.extend(presence.joined))
while sorted(came) != ["ann", "bob"]:
    pass
print(sorted(here.sessions("room/1")))
"""


def test_the_hubs_of_an_app_can_tell_each_other_who_is_there(
    flet_1_0: str, redis: RedisServer
) -> None:
    command = [flet_1_0, "-c", PRESENT, redis.url]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.stdout.splitlines() == [
        "presence needs hubs to share it with: give the hub a link too",
        "['ann', 'bob']",
    ], result.stderr
