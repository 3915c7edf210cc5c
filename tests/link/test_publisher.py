"""Sending to linked hubs, and listening to them, from where there are no sessions."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from typing import Any

import pytest
from link_tools import PATIENCE, Linked, follow, until
from redis_server import RedisServer

import pagebus

pytestmark = pytest.mark.link


def command(*arguments: str, **settings: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "pagebus", *arguments],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        env={**os.environ, **settings},
    )


def test_what_a_publisher_sends_reaches_the_sessions(linked: Linked, redis: RedisServer):
    hub = linked(codec=None, namespace="chat.main")
    log = asyncio.run(follow(hub, "ann", "news"))
    with pagebus.Publisher(redis.url, namespace="chat.main") as publisher:
        publisher.send_all_on_topic("news", {"it": "rains"})
        publisher.send_all((1, 2))
        publisher.send_to("ann", None)
    heard = log.wait(3)
    for message in [("news", {"it": "rains"}), (None, (1, 2)), (None, None)]:
        assert message in heard


def test_a_publisher_of_an_async_program(linked: Linked, redis: RedisServer):
    log = asyncio.run(follow(linked(codec=None), "ann", "news"))

    async def main() -> int:
        publisher = pagebus.Publisher(redis.url)
        publisher.send_all_on_topic("news", 1)
        return await publisher.aclose()

    assert asyncio.run(main()) == 0
    assert log.wait(1) == [("news", 1)]


def test_closing_says_how_many_messages_are_not_published(own_redis: RedisServer):
    own_redis.kill()
    publisher = pagebus.Publisher(own_redis.url)
    for number in range(3):
        publisher.send_all(number)
    assert publisher.close(0.1) == 3


def test_a_publisher_without_a_link_is_refused():
    with pytest.raises(TypeError, match="link must be a str, not NoneType"):
        pagebus.Publisher(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "heard"),
    [
        (["--topic", "news"], ("news", {"a": [1, None]})),
        (["--to", "ann"], (None, {"a": [1, None]})),
        ([], (None, {"a": [1, None]})),
    ],
)
def test_the_command_sends_json(
    linked: Linked, redis: RedisServer, arguments: list[str], heard: tuple[Any, Any]
):
    log = asyncio.run(follow(linked(codec=None), "ann", "news"))
    done = command("send", "--link", redis.url, *arguments, '{"a": [1, null]}')
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert log.wait(1) == [heard]


def test_the_command_listens(linked: Linked, redis: RedisServer):
    listener = subprocess.Popen(
        [sys.executable, "-m", "pagebus", "listen", "--topic", "news"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PAGEBUS_LINK": redis.url},
    )
    channel = "pagebus:{default:tnews}"
    until(lambda: b":1\r\n" in redis.ask("PUBSUB", "NUMSUB", channel), "nobody listens")
    linked(codec=None).send_all_on_topic("news", {"it": "rains"})
    assert listener.stdout is not None
    with listener.stdout:
        assert json.loads(listener.stdout.readline()) == {"it": "rains"}
        listener.send_signal(signal.SIGINT)
        assert listener.wait(PATIENCE) == 0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["send", "1"], "pagebus: say --link, or set PAGEBUS_LINK"),
        (["send", "--link", "redis://127.0.0.1:1/0", "{"], "pagebus: Expecting property name"),
        (["listen", "--link", "nowhere"], "pagebus: link cannot be used: "),
    ],
)
def test_what_cannot_be_done_is_said(arguments: list[str], complaint: str):
    done = command(*arguments, PAGEBUS_LINK="")
    assert done.returncode == 2
    assert done.stderr.startswith(complaint)
