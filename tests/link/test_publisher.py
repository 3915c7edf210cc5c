"""Sending to linked hubs, and listening to them, from where there are no sessions."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from link_tools import PATIENCE, Linked, follow, until
from proxy import Proxy
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


def listening(redis: RedisServer) -> "subprocess.Popen[str]":
    listener = subprocess.Popen(
        [sys.executable, "-m", "pagebus", "listen", "--topic", "news"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PAGEBUS_LINK": redis.url},
    )
    channel = "pagebus:{default:tnews}"
    until(lambda: b":1\r\n" in redis.ask("PUBSUB", "NUMSUB", channel), "nobody listens")
    return listener


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


def test_a_publisher_loses_nothing_of_what_it_sends_in_a_loop(linked: Linked, redis: RedisServer):
    log = asyncio.run(follow(linked(codec=None, max_pending=100_000), "ann", "news"))
    with pagebus.Publisher(redis.url, max_outbox=10) as publisher:
        for number in range(20_000):
            publisher.send_all_on_topic("news", number)
    assert publisher.close() == 0
    assert [number for _, number in log.wait(20_000)] == list(range(20_000))


def test_threads_that_share_a_publisher_lose_nothing(linked: Linked, redis: RedisServer):
    log = asyncio.run(follow(linked(codec=None, max_pending=100_000), "ann", "news"))
    publisher = pagebus.Publisher(redis.url, max_outbox=1)

    def send(thread: int) -> None:
        for number in range(200):
            publisher.send_all_on_topic("news", (thread, number))

    with ThreadPoolExecutor(4) as executor:
        list(executor.map(send, range(4)))
    assert publisher.close() == 0
    heard = [message for _, message in log.wait(800)]
    for thread in range(4):
        assert [n for t, n in heard if t == thread] == list(range(200))


def test_a_send_that_finds_no_room_in_time_says_so_and_nothing_is_lost(own_redis: RedisServer):
    own_redis.kill()
    publisher = pagebus.Publisher(own_redis.url, max_outbox=3, timeout=0.1)
    until(lambda: publisher._hub.link_state == "disconnected", "nobody notices")
    for number in range(3):
        publisher.send_all(number)
    for _ in range(2):
        with pytest.raises(
            pagebus.OutboxFull, match=r"no room .* for 0.1 seconds; the link is disconnected"
        ):
            publisher.send_all("too much")
    own_redis.start()
    assert publisher.close(PATIENCE) == 0
    assert own_redis.ask("XLEN", "pagebus:{default:a}:log") in (b":1\r\n", b":2\r\n")


def test_a_send_waits_until_the_server_is_back(own_redis: RedisServer):
    own_redis.kill()
    publisher = pagebus.Publisher(own_redis.url, max_outbox=1, timeout=None)
    publisher.send_all(1)
    with ThreadPoolExecutor(1) as executor:
        sent = executor.submit(publisher.send_all, 2)
        own_redis.start()
        sent.result(PATIENCE)
    assert publisher.close(PATIENCE) == 0


def test_in_a_coroutine_a_send_that_finds_no_room_says_what_to_do(own_redis: RedisServer):
    own_redis.kill()
    publisher = pagebus.Publisher(own_redis.url, max_outbox=1)

    async def main() -> None:
        publisher.send_all(1)
        with pytest.raises(pagebus.OutboxFull, match=r"max_outbox.* asyncio\.to_thread"):
            publisher.send_all(2)
        waiting = asyncio.create_task(asyncio.to_thread(publisher.send_all, 2))
        own_redis.start()
        await waiting

    asyncio.run(main())
    assert publisher.close(PATIENCE) == 0


def test_ctrl_c_ends_a_send_that_waits(own_redis: RedisServer):
    own_redis.kill()
    program = """
import sys, pagebus
publisher = pagebus.Publisher(sys.argv[1], max_outbox=1, timeout=None)
publisher.send_all(1)
try:
    print("waits", flush=True)
    publisher.send_all(2)
except KeyboardInterrupt:
    print("interrupted", publisher.close(0), flush=True)
"""
    command = [sys.executable, "-c", program, own_redis.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as sender:
        assert sender.stdout is not None
        assert sender.stdout.readline() == "waits\n"
        sender.send_signal(signal.SIGINT)
        assert sender.stdout.readline() == "interrupted 1\n"
    assert sender.returncode == 0


def test_a_send_that_waits_lets_other_threads_go_on(own_redis: RedisServer):
    own_redis.kill()
    publisher = pagebus.Publisher(own_redis.url, max_outbox=1, timeout=None)
    publisher.send_all(1)
    with ThreadPoolExecutor(1) as executor:
        sent = executor.submit(publisher.send_all, 2)
        until(sent.running, "it does not begin")
        sum(range(1_000_000))
        assert not sent.done()
        own_redis.start()
        sent.result(PATIENCE)
    assert publisher.close(PATIENCE) == 0


@pytest.mark.parametrize(
    ("arguments", "error", "complaint"),
    [
        ({"max_outbox": 0}, ValueError, "max_outbox must be at least 1"),
        ({"max_outbox": "1"}, TypeError, "max_outbox must be an int"),
        ({"timeout": -1}, ValueError, "timeout must not be negative"),
        ({"timeout": "1"}, TypeError, "timeout must be a number of seconds, or None"),
    ],
)
def test_wrong_limits_of_a_publisher_are_refused(
    arguments: dict[str, Any], error: type[Exception], complaint: str
):
    with pytest.raises(error, match=complaint):
        pagebus.Publisher("redis://127.0.0.1:1/0", **arguments)


@pytest.mark.parametrize("ways", ["with", "close"])
def test_a_publisher_that_is_closed_in_a_coroutine_has_published_everything(
    redis: RedisServer, proxy: Proxy, ways: str
):
    proxy.delay = 0.1

    async def main() -> None:
        if ways == "with":
            with pagebus.Publisher(proxy.url) as publisher:
                publisher.send_all_on_topic("news", "hello")
        else:
            publisher = pagebus.Publisher(proxy.url)
            publisher.send_all_on_topic("news", "hello")
            assert publisher.close() == 0
        assert redis.ask("XLEN", "pagebus:{default:tnews}:log") == b":1\r\n"

    asyncio.run(main())


def test_leaving_an_async_with_block_waits_while_the_loop_goes_on(redis: RedisServer, proxy: Proxy):
    proxy.delay = 0.1
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.001)
            turns += 1

    async def main() -> None:
        turning = asyncio.create_task(turn())
        async with pagebus.Publisher(proxy.url) as publisher:
            publisher.send_all_on_topic("news", "hello")
        turning.cancel()

    asyncio.run(main())
    assert turns > 1
    assert redis.ask("XLEN", "pagebus:{default:tnews}:log") == b":1\r\n"


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
    hub = linked(codec=None)
    with listening(redis) as listener:
        assert listener.stdout is not None
        hub.send_all_on_topic("news", {"it": "rains"})
        assert json.loads(listener.stdout.readline()) == {"it": "rains"}
        listener.send_signal(signal.SIGINT)
        assert listener.wait(PATIENCE) == 0


@pytest.mark.parametrize("message", [{(1, 2): 3}, {b"key": 1}, [{(1,): [b"x"]}]])
def test_the_command_shows_also_what_is_no_json(
    linked: Linked, redis: RedisServer, message: dict[Any, Any]
):
    hub = linked(codec=None)
    with listening(redis) as listener:
        assert listener.stdout is not None
        hub.send_all_on_topic("news", message)
        hub.send_all_on_topic("news", "after it")
        assert json.loads(listener.stdout.readline()) == repr(message)
        assert json.loads(listener.stdout.readline()) == "after it"
        listener.send_signal(signal.SIGINT)


def test_the_command_ends_quietly_when_nobody_reads_any_more(linked: Linked, redis: RedisServer):
    hub = linked(codec=None)
    with listening(redis) as listener:
        assert listener.stdout is not None
        assert listener.stderr is not None
        listener.stdout.close()
        hub.send_all_on_topic("news", 1)
        assert (listener.wait(PATIENCE), listener.stderr.read()) == (0, "")


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
