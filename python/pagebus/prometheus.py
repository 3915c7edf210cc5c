"""A hub's numbers for Prometheus, by way of the package ``prometheus-client``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pagebus import PubSubHub, Stats

__all__ = ["collector"]

_COUNTERS = {
    "published": "Messages that were sent.",
    "delivered": "Handler calls that were begun.",
    "failed": "Handler calls that raised.",
    "dropped": "Deliveries that were given up.",
    "unpublished": "Messages that a link will never publish.",
    "unreadable": "What came over a link and could not be read.",
}
_GAUGES = {
    "pending": "Messages that wait.",
    "sessions": "Sessions that have a subscription.",
    "topics": "Topics that have a subscription.",
    "subscriptions": "Subscriptions.",
    "outbox": "Messages that wait to be published over a link.",
}
_LATENCIES = {"p50": "half of the calls", "p99": "99 of 100 calls", "max": "all calls"}


def collector(hubs: PubSubHub | Mapping[str, PubSubHub]) -> Collector:
    """Make a collector of a hub's :class:`pagebus.Stats`, or of those of several hubs.

    ``prometheus_client.REGISTRY.register(collector(hub))`` shows, whenever it is asked,
    ``pagebus_published_total`` and the other counters, ``pagebus_pending`` and the other sizes, and
    ``pagebus_delivery_latency_p50_seconds``, ``..._p99_seconds`` and ``..._max_seconds``. It keeps
    the hubs alive.

    Args:
        hubs: A hub, or hubs by the names that tell them apart, in the label ``hub``. One hub alone
            is named ``"default"``. Several need one collector: a registry takes no metric twice.

    Raises:
        TypeError: ``hubs`` is neither a :class:`pagebus.PubSubHub` nor a mapping of names to such.
    """
    named = {"default": hubs} if isinstance(hubs, PubSubHub) else hubs
    if not isinstance(named, Mapping):
        raise TypeError(f"hubs must be a pagebus.PubSubHub or a mapping, not {_kind(named)}")
    for name, hub in named.items():
        if not isinstance(name, str):
            raise TypeError(f"a name in hubs must be a str, not {_kind(name)}")
        if not isinstance(hub, PubSubHub):
            raise TypeError(f"hubs[{name!r}] must be a pagebus.PubSubHub, not {_kind(hub)}")
    return _HubCollector(dict(named))


def _kind(value: object) -> str:
    return type(value).__name__


class _HubCollector(Collector):
    def __init__(self, hubs: dict[str, PubSubHub]) -> None:
        self._hubs = hubs

    def collect(self) -> Iterable[Metric]:
        return _metrics({name: hub.stats() for name, hub in self._hubs.items()})

    def describe(self) -> Iterable[Metric]:
        # By these names a registry knows a second collector, which it refuses.
        return _metrics({})


def _metrics(stats: Mapping[str, Stats]) -> Iterable[Metric]:
    def filled(metric: CounterMetricFamily | GaugeMetricFamily, field: str) -> Metric:
        for hub, numbers in stats.items():
            metric.add_metric([hub], getattr(numbers, field))
        return metric

    hub = ["hub"]
    for field, text in _COUNTERS.items():
        yield filled(CounterMetricFamily(f"pagebus_{field}", text, labels=hub), field)
    for field, text in _GAUGES.items():
        yield filled(GaugeMetricFamily(f"pagebus_{field}", text, labels=hub), field)
    for which, calls in _LATENCIES.items():
        name = f"pagebus_delivery_latency_{which}_seconds"
        text = f"Time from a send until a handler is called, of {calls} of the last minute or two."
        gauge = GaugeMetricFamily(name, text, labels=hub, unit="seconds")
        yield filled(gauge, f"latency_{which}")
