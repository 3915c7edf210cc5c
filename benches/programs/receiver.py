"""The receiving end of a bus: ``-m benches.programs.receiver BUS PORT``.

A line on standard input is two numbers: how many messages are received at once, and how often. For
each time it prints when the last of them came. Messages are numbered, so none is missing, doubled
or out of order.
"""

from __future__ import annotations

import gc
import itertools
import sys

from benches.buses import BUSES


def main(bus: str, port: int) -> None:
    end = BUSES[bus](port)
    end.listen()
    print("ready", flush=True)
    numbers = itertools.count()
    for line in sys.stdin:
        count, times = map(int, line.split())
        gc.collect()
        print("listening", flush=True)
        for _ in range(times):
            got, last = end.receive(count)
            if [int(message[:8]) for message in got] != list(itertools.islice(numbers, count)):
                sys.exit(f"{bus}: messages are missing, or in the wrong order")
            print(last, flush=True)
    end.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
