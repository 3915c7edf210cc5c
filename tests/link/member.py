"""A hub that takes part in a test: in this process, or in one of its own, which runs this file."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from typing import Any

from link_tools import Json, Log, follow

from pagebus import PubSubHub


class Member:
    """A hub, and what its sessions hear."""

    def __init__(self, url: str, **arguments: Any) -> None:
        self._gaps: list[Any] = []
        self._states: list[str] = []
        self._logs: dict[str, Log] = {}
        self._hub = PubSubHub(
            **{
                "link": url,
                "codec": Json,
                "on_gap": lambda topic, count: self._gaps.append([topic, count]),
                "on_link_state": self._states.append,
                **arguments,
            }
        )

    def follow(self, session: str, *topics: str) -> None:
        """Subscribe a session to messages to all, and to topics, and wait until it is ready."""
        self._logs[session] = asyncio.run(follow(self._hub, session, *topics))

    def wait(self, session: str, count: int) -> list[Any]:
        """What a session has heard when it has heard so much."""
        return [list(heard) for heard in self._logs[session].wait(count)]

    def wait_for(self, session: str, message: Any) -> list[Any]:
        """What a session has heard when that message has come."""
        return [list(heard) for heard in self._logs[session].wait_for(message)]

    def heard(self, session: str) -> list[Any]:
        return [list(heard) for heard in self._logs[session]]

    def send_many(self, topic: str, name: Any, count: int) -> None:
        for number in range(count):
            self._hub.send_all_on_topic(topic, [name, number])

    def call(self, method: str, *arguments: Any) -> None:
        """Do what a hub does."""
        getattr(self._hub, method)(*arguments)

    def gaps(self) -> list[Any]:
        return self._gaps

    def states(self) -> list[str]:
        return self._states

    def outbox(self) -> int:
        return self._hub.stats().outbox

    def close(self) -> int:
        """End it; return what was not published."""
        self._hub.close()
        return self._hub.stats().unpublished


class Elsewhere:
    """The same in a process of its own."""

    def __init__(self, url: str, **arguments: Any) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, json.dumps({"url": url, **arguments})],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._turn = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments: self._ask(name, arguments)

    def _ask(self, name: str, arguments: tuple[Any, ...]) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._turn:
            self._process.stdin.write(json.dumps([name, arguments]) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        assert answer, "the other process has ended"
        return json.loads(answer)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def main() -> None:
    member = Member(**json.loads(sys.argv[1]))
    for line in sys.stdin:
        name, arguments = json.loads(line)
        print(json.dumps(getattr(member, name)(*arguments)), flush=True)


if __name__ == "__main__":
    main()
