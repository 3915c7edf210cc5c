"""Ways from one process to another over a Redis server: pagebus, and what else there is.

Each has two ends. ``send`` sends messages as fast as it can, and says when it began; ``receive``
returns so many of them, and says when the last one came. All processes of a machine have the same
clock.
"""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import redis
import redis.asyncio
from pyperf import perf_counter

from benches.model import HOUR, KEPT
from pagebus import PubSubHub

TOPIC = "news"
SCRIPT = Path(__file__).resolve().parents[1] / "src" / "cluster" / "publish.lua"
"""What linked hubs run at the server for each entry."""
PIPELINE = 500
"""Commands that redis-py sends at once; with more it is no faster."""
MOST = 1_000_000
"""Messages that may wait somewhere: none is dropped, whatever the limits are in a real program."""

Messages = list[bytes]


class Bus(ABC):
    """One end of a way."""

    def __init__(self, port: int) -> None:
        self.url = f"redis://127.0.0.1:{port}/0"
        self.port = port

    @abstractmethod
    def listen(self) -> None:
        """Subscribes; what is sent from then on is received."""

    @abstractmethod
    def send(self, messages: Messages, topic: str = TOPIC) -> float:
        """Sends messages; returns when it began."""

    @abstractmethod
    def receive(self, count: int) -> tuple[Messages, float]:
        """So many messages, and when the last of them came."""

    @abstractmethod
    def close(self) -> None:
        """Disconnects."""


# ---- pagebus ------------------------------------------------------------------------------------


class PagebusSync(Bus):
    """Linked hubs, with a sync handler that is called on the thread of the link."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.hub = PubSubHub(link=self.url, max_outbox=MOST)
        self._got: Messages = []
        self._wanted, self._last = -1, 0.0
        self._done = threading.Event()

    def listen(self) -> None:
        asyncio.run(until_ready(self.hub, self._hear))

    def send(self, messages: Messages, topic: str = TOPIC) -> float:
        send = self.hub.send_all_on_topic
        start: float = perf_counter()
        for message in messages:
            send(topic, message)
        return start

    def receive(self, count: int) -> tuple[Messages, float]:
        self._wanted = count
        if len(self._got) < count:
            self._wait()
        self._done.clear()
        got, self._got = self._got, []
        return got, self._last

    def close(self) -> None:
        self.hub.close()

    def _hear(self, topic: str, message: bytes) -> None:
        self._got.append(message)
        if len(self._got) == self._wanted:
            self._last = perf_counter()
            self._done.set()

    def _wait(self) -> None:
        self._done.wait()


class Pagebus(PagebusSync):
    """Linked hubs, with an async handler on an event loop."""

    def listen(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.hub = PubSubHub(self.loop, link=self.url, max_pending=MOST)
        self._heard = asyncio.Event()
        self.loop.run_until_complete(until_ready(self.hub, self._hear_on_loop))

    async def _hear_on_loop(self, topic: str, message: bytes) -> None:
        self._got.append(message)
        if len(self._got) == self._wanted:
            self._last = perf_counter()
            self._heard.set()

    def _wait(self) -> None:
        self.loop.run_until_complete(self._heard.wait())
        self._heard.clear()


async def until_ready(hub: PubSubHub, handler: Callable[[str, Any], object]) -> None:
    """Subscribes, and returns when nothing is missed any more."""
    await hub.subscribe_topic("reader", TOPIC, handler).ready()


# ---- redis-py ---------------------------------------------------------------------------------


class RedisThreads(Bus):
    """redis-py without an event loop: what is received is read as soon as it is there."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.client = redis.Redis(port=port)
        self.pubsub = self.client.pubsub()

    def listen(self) -> None:
        self.pubsub.subscribe(TOPIC)
        next(self.pubsub.listen())

    def send(self, messages: Messages, topic: str = TOPIC) -> float:
        start: float = perf_counter()
        if len(messages) == 1:
            self.client.publish(topic, messages[0])
            return start
        for at in range(0, len(messages), PIPELINE):
            pipeline = self.client.pipeline(transaction=False)
            for message in messages[at : at + PIPELINE]:
                pipeline.publish(topic, message)
            pipeline.execute()
        return start

    def receive(self, count: int) -> tuple[Messages, float]:
        listen = self.pubsub.listen()
        got = [next(listen)["data"] for _ in range(count)]
        return got, perf_counter()

    def close(self) -> None:
        self.pubsub.close()
        self.client.close()


class RedisScript(RedisThreads):
    """redis-py at both ends of what pagebus does at the server: append, then push."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self._script = self.client.register_script(SCRIPT.read_text(encoding="utf-8"))
        self._sequence = 0

    def send(self, messages: Messages, topic: str = TOPIC) -> float:
        start: float = perf_counter()
        for message in messages:
            self._sequence += 1
            arguments: list[bytes | str | int]
            arguments = [self._sequence, message, KEPT, HOUR, topic, "PUBLISH"]
            self._script([f"{topic}:log", f"{topic}:state", f"{topic}:by"], arguments)
        return start

    def receive(self, count: int) -> tuple[Messages, float]:
        got, last = super().receive(count)
        return [message.partition(b":")[2] for message in got], last


class OnLoop(Bus):
    """What needs an event loop at both ends."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.loop = asyncio.new_event_loop()
        self.loop.run_until_complete(self.open())

    async def open(self) -> None:
        """Connects."""

    @abstractmethod
    async def begin(self) -> AsyncIterator[bytes]:
        """Subscribes."""

    @abstractmethod
    async def publish(self, messages: Messages, topic: str) -> None:
        """Sends."""

    def listen(self) -> None:
        self.messages = self.loop.run_until_complete(self.begin())

    def send(self, messages: Messages, topic: str = TOPIC) -> float:
        return self.loop.run_until_complete(self._send(messages, topic))

    async def _send(self, messages: Messages, topic: str) -> float:
        start: float = perf_counter()
        await self.publish(messages, topic)
        return start

    def receive(self, count: int) -> tuple[Messages, float]:
        return self.loop.run_until_complete(self._receive(count))

    async def _receive(self, count: int) -> tuple[Messages, float]:
        got: Messages = []
        async for message in self.messages:
            got.append(message)
            if len(got) == count:
                break
        return got, perf_counter()

    def close(self) -> None:
        self.loop.run_until_complete(self._end())
        self.loop.close()

    async def _end(self) -> None:
        """Ends what these packages have begun on the loop."""
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class RedisAsyncio(OnLoop):
    """redis-py on an event loop, with pipelines that are no transactions, and hiredis."""

    async def open(self) -> None:
        self.client = redis.asyncio.Redis(port=self.port)

    async def begin(self) -> AsyncIterator[bytes]:
        pubsub = self.client.pubsub()
        await pubsub.subscribe(TOPIC)
        messages: AsyncIterator[Any] = pubsub.listen()
        await anext(messages)
        return messages

    async def publish(self, messages: Messages, topic: str) -> None:
        if len(messages) == 1:
            await self.client.publish(topic, messages[0])
            return
        for at in range(0, len(messages), PIPELINE):
            pipeline = self.client.pipeline(transaction=False)
            for message in messages[at : at + PIPELINE]:
                pipeline.publish(topic, message)
            await pipeline.execute()

    async def _receive(self, count: int) -> tuple[Messages, float]:
        got: Messages = []
        message: Any
        async for message in self.messages:
            got.append(message["data"])
            if len(got) == count:
                break
        return got, perf_counter()


# ---- layers above redis-py ----------------------------------------------------------------------


class ChannelsPubSub(OnLoop):
    """channels_redis, its layer that uses pub/sub; it sends one message after the other."""

    def layer(self) -> Any:
        """The channel layer."""
        # Large, and of no use to whoever measures something else.
        from channels_redis.pubsub import RedisPubSubChannelLayer

        return RedisPubSubChannelLayer(hosts=[self.url])

    async def open(self) -> None:
        self.channel_layer = self.layer()

    async def begin(self) -> AsyncIterator[bytes]:
        name = await self.channel_layer.new_channel()
        await self.channel_layer.group_add(TOPIC, name)
        return self._messages(name)

    async def _messages(self, name: str) -> AsyncIterator[bytes]:
        while True:
            yield (await self.channel_layer.receive(name))["data"]

    async def publish(self, messages: Messages, topic: str) -> None:
        for message in messages:
            await self.channel_layer.group_send(topic, {"type": "news", "data": message})


class Channels(ChannelsPubSub):
    """channels_redis, its first layer, whose messages wait in sorted sets."""

    def layer(self) -> Any:
        from channels_redis.core import RedisChannelLayer

        return RedisChannelLayer(hosts=[self.url], capacity=MOST)


class Broadcaster(OnLoop):
    """broadcaster; it sends one message after the other."""

    async def open(self) -> None:
        from broadcaster import Broadcast

        self.broadcast = Broadcast(self.url)
        await self.broadcast.connect()

    async def begin(self) -> AsyncIterator[bytes]:
        # With redis-py 8 its listener misses the first subscription, and hears of the second.
        self._subscriptions = [self.broadcast.subscribe(name) for name in ("other", TOPIC)]
        _, subscriber = [await each.__aenter__() for each in self._subscriptions]
        return self._messages(subscriber)

    async def _messages(self, subscriber: Any) -> AsyncIterator[bytes]:
        async for event in subscriber:
            yield event.message.encode()

    async def publish(self, messages: Messages, topic: str) -> None:
        for message in messages:
            await self.broadcast.publish(topic, message.decode())


BUSES: dict[str, type[Bus]] = {
    "pagebus": Pagebus,
    "pagebus, sync handler": PagebusSync,
    "redis-py asyncio": RedisAsyncio,
    "redis-py, blocking": RedisThreads,
    "redis-py, blocking, same script": RedisScript,
    "channels_redis pub/sub": ChannelsPubSub,
    "channels_redis": Channels,
    "broadcaster": Broadcaster,
}
