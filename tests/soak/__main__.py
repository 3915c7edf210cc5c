"""``python -m soak``: puts hubs of every kind under load, and counts what they do wrong."""

from __future__ import annotations

import argparse
import faulthandler
import gc
import logging
import os
import platform
import random
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

import psutil

from delivery_modes import DEADLINE, WatchedExecutor
from soak.audience import Failure, Message, Seat
from soak.check import Round
from soak.plan import Size, Step, first_steps, steps, switch_interval
from soak.stage import WORKERS, Worker, loop_threads, stages

EVERY = 5.0
"""Seconds between two lines of progress."""

BEGIN, END = "<!-- measured: soak -->", "<!-- end -->"
"""What stands before and after the table in the documentation."""

GROWTH = 64
"""By how many MiB the process may grow once it is warm."""


class Failures(logging.Handler):
    """Counts what is logged of handlers that failed as they are meant to; keeps all the rest."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.count = 0
        self.others: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and isinstance(record.exc_info[1], Failure):
            self.count += 1
        else:
            self.others.append(self.format(record))


class Soak:
    """A run: rounds of load, with a look at everything when all is quiet between two of them."""

    def __init__(self, seed: int, size: Size) -> None:
        self.seed, self.size = seed, size
        self.loops, self.executor = loop_threads(), WatchedExecutor(WORKERS)
        self.stages = stages(self.loops, self.executor, size)
        self.workers = [Worker(self.stages) for _ in range(size.threads)]
        self.takes_async = [stage.takes_async for stage in self.stages]
        self.totals = [{"published": 0, "delivered": 0, "failed": 0} for _ in self.stages]
        self.failures = Failures()
        self.faults: list[str] = []
        self.turn = 0
        self.begun = time.monotonic()
        self.rss: list[int] = []
        self.gone: list[weakref.ref[Seat]] = []

    # ---- a round ----------------------------------------------------------------------------

    def plan(self, thread: int) -> list[Step]:
        """What a thread does in this round."""
        if self.turn == 0:
            return list(first_steps(self.seed, thread, self.size, self.takes_async))
        return list(steps(self.seed, self.turn, thread, self.size, self.takes_async))

    def hold_round(self) -> None:
        """Do what is planned, wait until all is quiet, and look at what came of it."""
        plans = [self.plan(thread) for thread in range(self.size.threads)]
        sys.setswitchinterval(switch_interval(self.seed, self.turn))
        threads = [
            threading.Thread(target=self._work, args=(worker, plan), daemon=True)
            for worker, plan in zip(self.workers, plans, strict=True)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
        if any(thread.is_alive() for thread in threads):
            self.get_stuck("a thread never ends")
        self.settle()
        self.look()
        if self.faults:
            self.tell_plans(plans)
        self.turn += 1

    def _work(self, worker: Worker, plan: list[Step]) -> None:
        try:
            for step in plan:
                worker.do(step)
        except Exception as error:  # whatever it is, it is a fault
            self.faults.append(f"round {self.turn}: {step}: {error!r}")

    def settle(self) -> None:
        """Return when no hub has anything left to deliver and no handler runs."""
        deadline = time.monotonic() + DEADLINE
        while not all(stage.settle_once() for stage in self.stages):
            if time.monotonic() > deadline:
                self.get_stuck("the hubs never settle")

    def look(self) -> None:
        """Compare what was delivered with what was sent."""
        failed = 0
        for hub, (stage, totals) in enumerate(zip(self.stages, self.totals, strict=True)):
            sent = [send for worker in self.workers for send in worker.take_sent(hub)]
            sent += [send for seat in stage.seats for send in seat.sender.sent]
            logs = [log for _, log in stage.witnesses] + [seat.log for seat in stage.seats]
            totals["published"] += len(sent)
            totals["delivered"] += sum(map(len, logs))
            totals["failed"] += sum(seat.failures for seat in stage.seats)
            failed += totals["failed"]
            this = Round(stage, sent)
            found = [*this.faults(), *this.faults_of_counts(totals)]
            self.faults += [f"round {self.turn}, {stage.name}: {fault}" for fault in found]
            self._forget(hub)
        if failed != self.failures.count:
            self.faults.append(f"{failed} handlers failed, {self.failures.count} were logged")
        if Message.alive():
            self.faults.append(f"round {self.turn}: messages that were delivered are still there")
        self.faults += [f"logged: {text}" for text in self.failures.others]
        self.faults += [f"loop: {error}" for loop in self.loops for error in loop.errors]

    def _forget(self, hub: int) -> None:
        stage = self.stages[hub]
        self.gone += [weakref.ref(seat) for seat in stage.seats if not seat.is_there]
        for seat in stage.seats:
            seat.joined, seat.failures = None, 0
            if seat.guest and not seat.guest.is_there:
                seat.guest = None
            seat.sender.sent.clear()
            seat.ended.clear()
            seat.log.clear()
        stage.seats[:] = [seat for seat in stage.seats if seat.is_there]
        for _, log in stage.witnesses:
            log.clear()

    def look_for_garbage(self) -> None:
        """See that nothing of those who have left is still there."""
        for worker in self.workers:
            worker.forget()
        gc.collect()
        kept = sum(seat() is not None for seat in self.gone)
        if kept:
            self.faults.append(f"round {self.turn}: {kept} handlers that left are still there")
        self.gone.clear()

    # ---- what it says -----------------------------------------------------------------------

    def count(self, name: str) -> int:
        """The sum of a count over all hubs."""
        return sum(totals[name] for totals in self.totals)

    def report(self, word: str = "") -> None:
        """Say how far it is."""
        seconds = time.monotonic() - self.begun
        self.rss.append(psutil.Process().memory_info().rss >> 20)
        joins = sum(worker.joins for worker in self.workers)
        print(
            f"{word}{seconds:.0f} s, {self.turn} rounds, {self.count('published'):,} sends, "
            f"{joins:,} subscriptions, {self.count('delivered'):,} deliveries "
            f"({self.count('delivered') / seconds:,.0f}/s), {self.count('failed'):,} failed "
            f"on purpose, {len(self.faults)} faults, RSS {self.rss[-1]} MiB",
            flush=True,
        )

    def write(self, page: Path) -> None:
        """Put the figures of the run into the table of a page of the documentation."""
        seconds = round(time.monotonic() - self.begun)
        rows = {
            "command": f"`make soak SECONDS={seconds} SEED={self.seed}`",
            "processor cores": f"{os.cpu_count()}",
            "Python": platform.python_version(),
            "hubs": ", ".join(stage.name for stage in self.stages),
            "sending threads": f"{self.size.threads}",
            "sessions at each hub": f"{self.size.sessions}",
            "rounds": f"{self.turn:,}",
            "sends": f"{self.count('published'):,}",
            "subscriptions that came and went": f"{sum(w.joins for w in self.workers):,}",
            "deliveries": f"{self.count('delivered'):,}",
            "handlers that failed on purpose, all of them logged": f"{self.count('failed'):,}",
            "messages lost, doubled or out of order": f"{len(self.faults)}",
            "resident memory after the first round": f"{self.rss[0]} MiB",
            "after a quarter of the time": f"{self.rss[len(self.rss) // 4]} MiB",
            "at the end": f"{self.rss[-1]} MiB",
        }
        table = "".join(f"| {name} | {value} |\n" for name, value in rows.items())
        text = page.read_text(encoding="utf-8")
        head, _, rest = text.partition(BEGIN)
        _, _, tail = rest.partition(END)
        table = f"\n\n| | |\n| --- | --- |\n{table}\n"
        page.write_text(f"{head}{BEGIN}{table}{END}{tail}", encoding="utf-8")

    def tell_plans(self, plans: list[list[Step]]) -> None:
        """Say what was done in the round that went wrong."""
        for thread, plan in enumerate(plans):
            print(f"round {self.turn}, thread {thread}:", file=sys.stderr)
            for step in plan:
                print(f"  {step}", file=sys.stderr)
        for fault in self.faults[:20]:
            print(f"FAULT {fault}", file=sys.stderr)
        again = f"python -m soak --seed {self.seed} --rounds {self.turn + 1}"
        print(f"Replay: {again}", file=sys.stderr)

    def get_stuck(self, why: str) -> None:
        """Say where everything stands, and end the process: nothing else can."""
        self.faults.append(f"round {self.turn}: {why}")
        print(f"FAULT {self.faults[-1]}", file=sys.stderr)
        for stage in self.stages:
            stats = stage.hub.stats()
            print(f"  {stage.name}: {stats.pending} pending", file=sys.stderr)
        faulthandler.dump_traceback(all_threads=True)
        self.tell_plans([self.plan(thread) for thread in range(self.size.threads)])
        self.report("FAULTY: ")
        os._exit(1)

    def check_growth(self) -> None:
        """A process that is warm and still grows keeps something."""
        warm = self.rss[len(self.rss) // 4 :]
        if warm and warm[-1] - warm[0] > GROWTH:
            self.faults.append(f"the process grew from {warm[0]} to {warm[-1]} MiB")

    # ---- all of it --------------------------------------------------------------------------

    def rounds(self, seconds: float, rounds: int | None) -> Iterator[int]:
        """The rounds to hold: as many as are asked for, or as time allows."""
        while self.turn < rounds if rounds else time.monotonic() - self.begun < seconds:
            yield self.turn

    def run(self, seconds: float, rounds: int | None) -> bool:
        """Hold rounds until time is up or something goes wrong; tell whether nothing did."""
        logger = logging.getLogger("pagebus")
        logger.addHandler(self.failures)
        logger.propagate = False
        reported = 0.0
        for _ in self.rounds(seconds, rounds):
            self.hold_round()
            if self.faults:
                break
            if time.monotonic() - reported > EVERY:
                reported = time.monotonic()
                self.look_for_garbage()
                self.report()
        self.look_for_garbage()
        self.check_growth()
        self.report("FAULTY: " if self.faults else "done: ")
        return not self.faults


def main() -> None:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20, help="how long (default: 20)")
    parser.add_argument("--rounds", type=int, help="how many rounds, instead of how long")
    parser.add_argument("--seed", type=int, help="what to do (default: something new)")
    parser.add_argument("--threads", type=int, default=8, help="how many send (default: 8)")
    parser.add_argument("--sessions", type=int, default=100, help="default: 100")
    parser.add_argument("--page", type=Path, help="the page that gets the figures of a good run")
    arguments = parser.parse_args()
    seed = random.randrange(10**6) if arguments.seed is None else arguments.seed
    size = Size(arguments.threads, arguments.sessions)
    print(f"seed {seed}, {size.threads} threads, {size.sessions} sessions at each hub", flush=True)
    soak = Soak(seed, size)
    fine = soak.run(arguments.seconds, arguments.rounds)
    if fine and arguments.page:
        soak.write(arguments.page)
    sys.exit(0 if fine else 1)


if __name__ == "__main__":
    main()
