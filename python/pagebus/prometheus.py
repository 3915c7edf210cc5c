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
}
_GAUGES = {
    "pending": "Messages that wait.",
    "sessions": "Sessions that have a subscription.",
    "topics": "Topics that have a subscription.",
    "subscriptions": "Subscriptions.",
}
_QUANTILES = {"0.5": "latency_p50", "0.99": "latency_p99", "1": "latency_max"}


def collector(hubs: PubSubHub | Mapping[str, PubSubHub]) -> Collector:
    """Make a collector of a hub's :class:`pagebus.Stats`, or of those of several hubs.

    ``prometheus_client.REGISTRY.register(collector(hub))`` shows, whenever it is asked,
    ``pagebus_published_total`` and the other counters, ``pagebus_pending`` and the other sizes, and
    ``pagebus_latency_seconds`` with the label ``quantile``. It keeps the hubs alive.

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
        stats = {name: hub.stats() for name, hub in self._hubs.items()}
        for field, text in _COUNTERS.items():
            counter = CounterMetricFamily(f"pagebus_{field}", text, labels=["hub"])
            for name, numbers in stats.items():
                counter.add_metric([name], getattr(numbers, field))
            yield counter
        for field, text in _GAUGES.items():
            gauge = GaugeMetricFamily(f"pagebus_{field}", text, labels=["hub"])
            for name, numbers in stats.items():
                gauge.add_metric([name], getattr(numbers, field))
            yield gauge
        yield _latencies(stats)


def _latencies(stats: dict[str, Stats]) -> Metric:
    text = "Time from a send until a handler is called, of the last one to two minutes."
    gauge = GaugeMetricFamily("pagebus_latency_seconds", text, labels=["hub", "quantile"])
    for name, numbers in stats.items():
        for quantile, field in _QUANTILES.items():
            gauge.add_metric([name, quantile], getattr(numbers, field))
    return gauge
