"""What may be sent between linked hubs, and what becomes of what may not."""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any
from uuid import UUID

import pytest
from link_tools import Json, Linked, follow, until
from redis_server import RedisServer

import pagebus

pytestmark = pytest.mark.link


@pagebus.message(name="test link Note")
@dataclass
class Note:
    author: str
    text: str


MESSAGES = [
    *("text", 7, 2**100, 1.5, True, None, b"bytes", [1, [2]], (1, (2,)), {"a": {"b": 1}, 2: 3}),
    datetime(2026, 11, 21, tzinfo=timezone.utc),
    UUID(int=7),
    Note("ann", "hello"),
    [Note("ann", "one"), {"note": Note("bob", "two")}],
]


@pytest.mark.parametrize("message", MESSAGES, ids=repr)
def test_what_is_sent_arrives_as_it_was(linked: Linked, message: object):
    here, there = linked(codec=None), linked(codec=pagebus.MessagePack())
    log = asyncio.run(follow(there, "bob", "news"))
    here.send_all_on_topic("news", message)
    [(_, got)] = log.wait(1)
    assert (type(got), got) == (type(message), message)


def test_what_no_other_process_could_know_is_refused_at_the_send(linked: Linked):
    class Unknown:
        pass

    hub = linked(codec=None)
    with pytest.raises(TypeError, match=r"Unknown.*pagebus\.message"):
        hub.send_all({"user": Unknown()})
    assert hub.stats().outbox == 0


def test_a_message_that_cannot_be_decoded_is_skipped(
    linked: Linked, caplog: pytest.LogCaptureFixture
):
    here, there = linked(), linked(codec=None)
    log = asyncio.run(follow(there, "bob", "news"))
    # JSON is no MessagePack.
    here.send_all_on_topic("news", {"a": 1})
    until(lambda: here.stats().outbox == 0, "it is not published")
    linked(codec=None).send_all_on_topic("news", "well")
    assert log.wait(1) == [("news", "well")]
    until(lambda: there.stats().unreadable == 1, "nothing is skipped")
    [record] = [r for r in caplog.records if "cannot be decoded" in r.message]
    assert record.exc_info is not None
    assert record.exc_info[0] is pagebus.DecodeError


@pytest.mark.parametrize("codec", [7, object(), type("Half", (), {"encode": lambda m: b""})])
def test_what_is_no_codec_is_refused(redis: RedisServer, codec: Any):
    with pytest.raises(TypeError, match=r"codec must be an object with encode\(\) and decode\(\)"):
        pagebus.PubSubHub(link=redis.url, codec=codec)


def test_a_codec_that_makes_no_bytes_is_refused_at_the_send(linked: Linked):
    class Text(Json):
        @staticmethod
        def encode(message: Any) -> Any:
            return str(message)

    with pytest.raises(TypeError, match=r"what codec\.encode returns must be bytes, not str"):
        linked(codec=Text).send_all(1)
