"""Insight: how long deliveries take, which handlers are slow or fail, which topics are busy."""

import asyncio
import contextlib
import inspect
import json
import logging
import re
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import prometheus_client.openmetrics.exposition
import prometheus_client.openmetrics.parser
import pytest
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families

import pagebus.prometheus
from delivery_modes import Bus, collect_garbage
from pagebus import BusyTopic, FailingHandler, PubSubHub, SlowHandler, Stats


def ignore(*_: object) -> None:
    """Hear a message, and do nothing."""


def test_a_hub_that_has_delivered_nothing_has_no_latency():
    stats = PubSubHub().stats()

    assert (stats.latency_p50, stats.latency_p99, stats.latency_max) == (0, 0, 0)
    assert (stats.slowest, stats.failing, stats.busiest) == ((), (), ())


def test_the_latency_is_the_time_from_the_send_to_the_call(bus: Bus):
    before = time.perf_counter()
    bus.subscribe("ann", bus.handler(ignore))
    bus.hub.send_all("hello")
    bus.settle()
    gone_by = time.perf_counter() - before

    stats = bus.hub.stats()
    assert 0 < stats.latency_p50 <= stats.latency_p99 <= stats.latency_max < gone_by * 1.02


def test_messages_that_are_kept_have_a_latency_too_but_replaying_them_has_none(bus: Bus):
    hub = bus.hub = bus.new_hub(history=10)
    bus.subscribe_topic("ann", "room", bus.handler(ignore))
    hub.send_all_on_topic("room", "hello")
    bus.settle()
    latency = hub.stats().latency_max
    assert latency > 0

    bus.subscribe_topic("bob", "room", bus.handler(ignore), replay=10)
    bus.settle()

    assert hub.stats().latency_max == latency


def test_a_message_that_waits_for_its_loop_is_late(async_bus: Bus):
    gate = async_bus.gate()
    async_bus.subscribe("ann", async_bus.handler(ignore))

    def block() -> None:
        async_bus.hub.send_all("hello")
        gate.arrivals.record("sent")
        gate.wait()

    asleep = async_bus.loop.loop.call_soon_threadsafe(block)
    gate.arrivals.wait(1)
    began = time.perf_counter()
    while time.perf_counter() - began < 0.05:
        pass
    gate.open()
    async_bus.settle()

    assert async_bus.hub.stats().latency_max >= 0.05
    asleep.cancel()


def slow_handler(*_: object) -> None:
    """Take more than a millisecond."""
    end = time.perf_counter() + 0.002
    while time.perf_counter() < end:
        pass


def test_a_handler_that_takes_long_is_told_by_name(bus: Bus):
    handler = bus.handler(slow_handler)
    bus.subscribe("ann", handler)
    bus.subscribe("bob", bus.handler(ignore))
    for number in range(5):
        bus.hub.send_all(number)
    bus.settle()

    slowest = bus.hub.stats().slowest[0]
    assert slowest.handler == f"{handler.__module__}.{handler.__qualname__}"
    assert slowest.calls >= 1
    # The other handler has the same name here, and counts too where it was held up.
    assert 0 < slowest.mean <= slowest.max
    assert slowest.max >= 0.002


def test_the_time_of_an_async_handler_includes_what_it_awaits(async_bus: Bus):
    async def wait(message: object) -> None:
        await asyncio.sleep(0.01)

    async_bus.subscribe("ann", wait)
    async_bus.hub.send_all("hello")
    while not async_bus.hub.stats().slowest:
        async_bus.settle()

    [slowest] = async_bus.hub.stats().slowest
    assert "wait" in slowest.handler
    assert slowest.max >= 0.005


def test_one_slow_handler_among_many_is_found(bus: Bus):
    for number in range(100):
        bus.subscribe(f"session {number}", bus.handler(ignore))
    bus.subscribe("slow", bus.handler(slow_handler))
    # Which calls are timed is left to chance: about one of 256.
    while not any(one.max >= 0.002 for one in bus.hub.stats().slowest):
        bus.hub.send_all("hello")
        bus.settle()


def test_at_most_twenty_slow_handlers_are_told_the_slowest_first():
    hub = PubSubHub()
    for number in range(40):

        class Handler:
            def __call__(self, message: object) -> None:
                slow_handler()

        Handler.__qualname__ = f"Handler{number}"
        hub.subscribe("ann", Handler())
    for number in range(3):
        hub.send_all(number)

    slowest = hub.stats().slowest
    assert len(slowest) == 20
    assert [one.max for one in slowest] == sorted((one.max for one in slowest), reverse=True)


def test_a_handler_that_fails_is_told_with_its_last_traceback(bus: Bus, log: Any):
    def fail(message: object) -> None:
        raise ValueError(f"no {message}")

    bus.subscribe("ann", bus.handler(fail))
    for number in range(3):
        bus.hub.send_all(number)
    bus.settle()
    log.take(3)

    [failing] = bus.hub.stats().failing
    assert failing.failures == 3
    assert failing.traceback.startswith("Traceback (most recent call last):")
    assert failing.traceback.rstrip().endswith("ValueError: no 2")


def test_the_handler_that_failed_last_comes_first_however_often_the_others_did(log: Any):
    hub = PubSubHub()

    def failing_as(name: str) -> Callable[[object], None]:
        def fail(_: object) -> None:
            raise ValueError(name)

        fail.__qualname__ = name
        return fail

    ann, bob = failing_as("ann"), failing_as("bob")
    for handler in (ann, bob, bob, ann):
        with hub.subscribe("session", handler):
            hub.send_all("hello")
    log.take(4)

    told = [(one.handler, one.failures) for one in hub.stats().failing]
    assert told == [(f"{__name__}.ann", 2), (f"{__name__}.bob", 2)]


def test_the_handler_that_failed_longest_ago_is_forgotten_for_the_257th(log: Any):
    hub = PubSubHub()

    def fail_as(name: str) -> None:
        def fail(_: object) -> None:
            raise ValueError(name)

        fail.__qualname__ = name
        with hub.subscribe("ann", fail):
            hub.send_all("hello")

    for number in [*range(257), 256, 0]:
        fail_as(f"handler{number}")
    log.take(259)

    failures = {one.handler: one.failures for one in hub.stats().failing}
    assert failures[f"{__name__}.handler256"] == 2
    assert failures[f"{__name__}.handler0"] == 1


def test_failures_at_the_same_time_are_all_counted(log: Any):
    log.keep_alone()  # who formats a record has a lock
    written = threading.Barrier(2, timeout=10)

    class Failure(Exception):
        def __str__(self) -> str:
            if not written.broken:
                with contextlib.suppress(threading.BrokenBarrierError):
                    written.wait()
                written.abort()
            return "both tracebacks are being written"

    def fail(_: object) -> None:
        raise Failure

    with ThreadPoolExecutor(2) as executor, PubSubHub(executor=executor) as hub:
        hub.subscribe("ann", fail)
        hub.subscribe("bob", fail)
        hub.send_all("hello")
        hub.close()
    log.take(2)

    [failing] = hub.stats().failing
    assert failing.failures == hub.stats().failed == 2


def test_the_traceback_keeps_nothing_of_the_handler_alive(
    monkeypatch: pytest.MonkeyPatch,
):
    class Page:
        pass

    # What pytest keeps of the log keeps the handler's frame, and so its arguments.
    monkeypatch.setattr(logging.getLogger("pagebus"), "disabled", True)
    hub, page = PubSubHub(), Page()
    seen = weakref.ref(page)

    def fail(message: object, page: Page = page) -> None:
        raise ValueError(page)

    hub.subscribe("ann", fail)
    hub.send_all("hello")
    hub.unsubscribe_all("ann")
    del page, fail
    collect_garbage()

    assert hub.stats().failing[0].failures == 1
    assert seen() is None


@pytest.mark.usefixtures("_ctrl_c")
def test_ctrl_c_while_a_traceback_is_written_is_not_lost(monkeypatch: pytest.MonkeyPatch):
    class Failure(Exception):
        @property
        def __cause__(self) -> BaseException:
            raise KeyboardInterrupt

    # A handler of the log would meet it first.
    monkeypatch.setattr(logging.getLogger("pagebus"), "disabled", True)
    hub = PubSubHub()

    def fail(_: object) -> None:
        raise Failure

    def send() -> None:
        hub.send_all("hello")
        # Here at the latest Python looks whether a signal has come.
        time.sleep(0)

    hub.subscribe("ann", fail)
    with pytest.raises(KeyboardInterrupt):
        send()


def test_a_very_long_traceback_is_cut(log: Any):
    hub = PubSubHub()

    def fail(message: str) -> None:
        raise ValueError(message)

    hub.subscribe("ann", fail)
    hub.send_all("x" * 100_000)
    log.take(1)

    assert 8_000 <= len(hub.stats().failing[0].traceback) <= 8_010


def test_the_busiest_topics_come_first():
    hub = PubSubHub()
    for number in range(50):
        hub.subscribe_topic("ann", f"topic {number}", ignore)
        for _ in range(number * 16):
            hub.send_all_on_topic(f"topic {number}", "hello")
    hub.subscribe_topic("bob", "topic 49", ignore)

    busiest = hub.stats().busiest
    assert [one.topic for one in busiest] == [f"topic {number}" for number in range(49, 29, -1)]
    assert (busiest[0].published, busiest[0].sessions, busiest[1].sessions) == (49 * 16, 2, 1)


def test_a_topic_that_ends_is_busy_no_more():
    hub = PubSubHub()
    with hub.subscribe_topic("ann", "room", ignore):
        hub.send_all_on_topic("room", "hello")
        assert [one.topic for one in hub.stats().busiest] == ["room"]

    assert hub.stats().busiest == ()


def test_a_topic_that_nobody_listens_to_is_not_told():
    hub = PubSubHub(history=10)
    hub.send_all_on_topic("nowhere", "hello")

    assert hub.stats().busiest == ()


def test_records_say_what_they_are():
    hub = PubSubHub()
    hub.subscribe_topic("ann", "room", slow_handler)
    hub.send_all_on_topic("room", "hello")
    stats = hub.stats()

    assert repr(stats.busiest[0]) == "<BusyTopic 'room' published=1>"
    slow = r"<SlowHandler test_insight\.slow_handler max=\d+\.\d+.*>"
    assert re.fullmatch(slow, repr(stats.slowest[0]))
    with pytest.raises(AttributeError):
        stats.published = 0  # type: ignore[misc]


def test_records_can_be_compared_and_made_into_dictionaries(log: Any):
    def fail(_: object) -> None:
        raise ValueError("no")

    hub = PubSubHub()
    hub.subscribe_topic("ann", "room", lambda topic, message: slow_handler())
    hub.subscribe("ann", fail)
    hub.send_all_on_topic("room", "hello")
    hub.send_all("hello")
    log.take(1)
    stats = hub.stats()

    assert stats == hub.stats()
    assert hash(stats) == hash(hub.stats())
    assert stats != PubSubHub().stats()
    assert stats != stats.asdict()
    [failing] = stats.failing
    assert stats.asdict()["failing"] == (
        {"handler": failing.handler, "failures": 1, "traceback": failing.traceback},
    )
    assert json.loads(json.dumps(stats.asdict()))["busiest"] == [
        {"topic": "room", "published": 1, "sessions": 1}
    ]
    match stats.busiest[0]:
        case BusyTopic(topic, published=sends):
            assert (topic, sends) == ("room", 1)


@pytest.mark.parametrize("record", [Stats, SlowHandler, FailingHandler, BusyTopic])
def test_a_dictionary_has_all_fields_of_a_record(record: type):
    fields = {name for name, value in vars(record).items() if inspect.isdatadescriptor(value)}
    assert set(record.__match_args__) == fields


# ---- Prometheus -----------------------------------------------------------------------------


Format = tuple[Callable[..., bytes], Callable[[str], Iterable[Metric]]]
TEXT: Format = (generate_latest, text_string_to_metric_families)
OPENMETRICS: Format = (
    prometheus_client.openmetrics.exposition.generate_latest,
    prometheus_client.openmetrics.parser.text_string_to_metric_families,
)


def scrape(
    hubs: PubSubHub | dict[str, PubSubHub], through: Format = TEXT
) -> dict[tuple[str, str], float]:
    """What comes out of Prometheus's own parser, by name and hub."""
    registry = CollectorRegistry()
    registry.register(pagebus.prometheus.collector(hubs))
    write, read = through
    samples = [sample for metric in read(write(registry).decode()) for sample in metric.samples]
    assert all(sample.labels.keys() == {"hub"} for sample in samples)
    return {(sample.name, sample.labels["hub"]): sample.value for sample in samples}


@pytest.mark.parametrize("through", [TEXT, OPENMETRICS], ids=["text", "openmetrics"])
def test_prometheus_sees_what_stats_say(through: Format):
    hub = PubSubHub()
    hub.subscribe("ann", ignore)
    for number in range(3):
        hub.send_all(number)
    metrics, stats = scrape(hub, through), hub.stats().asdict()

    assert stats["latency_max"] > 0
    counters = ("published", "delivered", "failed", "dropped", "unpublished", "unreadable")
    sizes = ("pending", "sessions", "topics", "subscriptions", "outbox")
    assert metrics == {
        **{(f"pagebus_{field}_total", "default"): stats[field] for field in counters},
        **{(f"pagebus_{field}", "default"): stats[field] for field in sizes},
        **{
            (f"pagebus_delivery_latency_{which}_seconds", "default"): stats[f"latency_{which}"]
            for which in ("p50", "p99", "max")
        },
    }


def test_prometheus_tells_several_hubs_apart():
    chat, news = PubSubHub(), PubSubHub()
    chat.send_all("hello")
    metrics = scrape({"chat": chat, "news": news})

    assert metrics["pagebus_published_total", "chat"] == 1
    assert metrics["pagebus_published_total", "news"] == 0


def test_a_registry_refuses_a_second_collector():
    registry, hub = CollectorRegistry(), PubSubHub()
    registry.register(pagebus.prometheus.collector(hub))

    with pytest.raises(ValueError, match="Duplicated timeseries"):
        registry.register(pagebus.prometheus.collector(hub))
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        registry.register(pagebus.prometheus.collector({"other": PubSubHub()}))


def test_a_collector_says_which_argument_is_wrong():
    for hubs, message in [
        ("hub", r"hubs must be a pagebus\.PubSubHub or a mapping, not str"),
        ({1: PubSubHub()}, "a name in hubs must be a str, not int"),
        ({"chat": None}, r"hubs\['chat'\] must be a pagebus\.PubSubHub, not NoneType"),
    ]:
        with pytest.raises(TypeError, match=message):
            pagebus.prometheus.collector(hubs)  # type: ignore[arg-type]


def test_pagebus_itself_does_not_import_prometheus():
    program = "import pagebus, sys; sys.exit('prometheus_client' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
