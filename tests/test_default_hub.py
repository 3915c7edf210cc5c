"""``pagebus.default_hub()``: one hub for a whole process."""

import subprocess
import sys
import threading
from textwrap import dedent

import pytest

import pagebus


def run(program: str) -> None:
    """Run a program to its end, in a process whose hub nobody has asked for."""
    result = subprocess.run([sys.executable, "-c", dedent(program)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_every_thread_gets_the_same_hub() -> None:
    run("""
        import threading
        import pagebus

        hubs, together = [], threading.Barrier(16)

        def ask():
            together.wait()
            hubs.append(pagebus.default_hub())

        threads = [threading.Thread(target=ask) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(hubs) == 16
        assert set(hubs) == {pagebus.default_hub()}
    """)


def test_what_threads_send_reaches_who_has_subscribed() -> None:
    heard: list[int] = []
    ann = pagebus.PubSub(pagebus.default_hub(), f"ann {threading.get_ident()}")

    def send(number: int) -> None:
        pagebus.default_hub().send_to(ann.session_id, number)

    with ann.subscribe(heard.append):
        threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        # Whichever thread delivers, this send comes after all of theirs.
        send(8)
    assert sorted(heard) == list(range(9))


def test_who_closes_it_closes_it_for_all() -> None:
    run("""
        import pagebus

        pagebus.default_hub().close()
        assert pagebus.default_hub().closed
        try:
            pagebus.default_hub().send_all("too late")
        except pagebus.HubClosed:
            pass
        else:
            raise AssertionError("sent")
    """)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_child_process_has_a_copy_of_its_own() -> None:
    run("""
        import os
        import pagebus

        heard = []
        pagebus.PubSub(pagebus.default_hub(), "ann").subscribe(heard.append)
        child = os.fork()
        pagebus.default_hub().send_all(f"{child > 0}")
        assert heard == [f"{child > 0}"]
        if child:
            assert os.waitpid(child, 0)[1] == 0
    """)
