"""What a monitor reads of a hub, and what it makes of two readings."""

import json
from dataclasses import asdict
from types import SimpleNamespace
from typing import Any

import pytest

from delivery_modes import collect_garbage
from pagebus import PubSub, PubSubHub
from pagebus._watch import PERIOD, HubWatch, Reader, Reading, Watch, watch_of


def reading_of(hub: PubSubHub) -> Reading:
    reading = Reader(hub).read()
    assert reading is not None
    return reading


def test_a_reading_says_what_the_hub_says() -> None:
    hub = PubSubHub()
    ann = PubSub(hub, "ann")
    ann.identify(name="Ann", seat=7)
    ann.subscribe_topic("news", lambda topic, message: None)
    ann.subscribe_topic("sports", lambda topic, message: None)
    hub.send_all_on_topic("news", "it rains")

    reading, stats = reading_of(hub), hub.stats()
    lists = ("slowest", "failing", "busiest")
    numbers = {name: value for name, value in stats.asdict().items() if name not in lists}
    assert numbers.items() <= asdict(reading).items()
    assert reading.named == [["ann", "name=Ann, seat=7"]]
    assert reading.busiest == [("news", 1, 1), ("sports", 1, 0)]


def test_a_reading_can_be_told_to_another_process() -> None:
    hub = PubSubHub()
    PubSub(hub, "ann").subscribe(print)
    reading = reading_of(hub)
    told = Reading(**json.loads(json.dumps(asdict(reading))))
    assert asdict(told) == asdict(reading)


def test_what_a_session_says_of_itself_may_be_long_or_impossible_to_write() -> None:
    class Secret:
        def __str__(self) -> str:
            raise RuntimeError("not for you")

    hub = PubSubHub()
    for number, said in enumerate([{"password": Secret()}, {"poem": "la " * 10_000}]):
        session = PubSub(hub, str(number))
        session.identify(**said)
        session.subscribe(print)
    told = dict(reading_of(hub).named)
    assert told["0"] == "password=<Secret>"
    assert told["1"].startswith("poem=la la ")
    assert len(told["1"]) == 200


def test_names_may_be_long_or_have_no_encoding() -> None:
    hub = PubSubHub()
    hub.subscribe_topic("ann \ud800", "news \udfff", lambda topic, message: None)
    hub.subscribe_topic("bob", "la " * 10_000, lambda topic, message: None)
    hub.send_all_on_topic("news \udfff", "it rains")

    reading = reading_of(hub)
    assert [session for session, _ in reading.named] == ["ann \\ud800", "bob"]
    assert reading.busiest == [("news \\udfff", 1, 1), (("la " * 67)[:200], 1, 0)]


def reading_at(at: float, reading: Reading, **others: Any) -> Reading:
    return Reading(**{**asdict(reading), "at": at, **others})


def test_rates_are_differences_of_two_readings() -> None:
    watch, first = Watch(), reading_of(PubSubHub())
    watch.add(reading_at(10.0, first))
    assert watch.last is None
    watch.add(reading_at(12.0, first, published=30, delivered=300, latency_p99=0.5))
    assert watch.last is not None
    assert (watch.last.published, watch.last.delivered, watch.last.p99) == (15.0, 150.0, 0.5)


def test_only_the_last_minutes_are_kept() -> None:
    watch, first = Watch(), reading_of(PubSubHub())
    for second in range(1000):
        watch.add(reading_at(float(second), first))
    moments = list(watch.moments())
    assert (moments[0].at, moments[-1].at) == (819.0, 999.0)


def test_all_who_look_at_a_hub_share_one_watch_which_reads_it_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr("pagebus._watch.time", SimpleNamespace(monotonic=lambda: now))
    hub = PubSubHub()
    watch = watch_of(hub)
    assert watch_of(hub) is watch
    watch.refresh()
    first = watch.reading
    now += PERIOD / 2
    watch.refresh()
    assert watch.reading is first
    now += PERIOD / 2
    watch.refresh()
    assert watch.reading is not first


def test_a_watch_does_not_keep_its_hub() -> None:
    watch = HubWatch(PubSubHub())
    collect_garbage()
    watch.refresh()
    assert watch.reading is None
