"""Servers that ask for a password, and that are reached by TLS."""

import asyncio
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from brokers import KINDS
from link_tools import PATIENCE, Linked, follow, until
from redis_server import REDIS, Certificate, RedisServer

pytestmark = [
    pytest.mark.link,
    pytest.mark.thread_unsafe(reason="it is about other processes"),
]


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl, which makes the certificate")
    return Certificate(tmp_path)


def test_user_and_password_are_said_in_the_url(linked: Linked, tmp_path: Path):
    server = RedisServer(tmp_path)
    try:
        server.ask("ACL", "SETUSER", "chat", "on", ">secret", "~*", "&*", "+@all")
        server.ask("ACL", "SETUSER", "default", "off")
        refused = linked(link=f"redis://127.0.0.1:{server.port}/0")
        refused.send_all("not yet")
        until(lambda: refused.link_state == "disconnected", "it is let in without a password")
        hub = linked(link=f"redis://chat:secret@127.0.0.1:{server.port}/0")
        log = asyncio.run(follow(hub, "ann"))
        hub.send_all("hello")
        assert log.wait(1) == [(None, "hello")]
    finally:
        server.kill()


def test_a_user_needs_no_more_rights_than_the_documentation_says(linked: Linked, tmp_path: Path):
    page = (Path(__file__).parents[2] / "docs" / "link.md").read_text()
    found = re.search(r"^ACL SETUSER chat .*?(?=^```)", page, re.DOTALL | re.MULTILINE)
    assert found is not None
    server = RedisServer(tmp_path)
    try:
        server.tell(*found[0].split())
        link = f"redis://chat:secret@127.0.0.1:{server.port}/0"
        here, there = (linked(link=link, presence=True, history=9) for _ in range(2))
        logs = [asyncio.run(follow(hub, name, "news")) for hub, name in [(here, "a"), (there, "b")]]
        here.send_all_on_topic("news", 1)
        there.send_all(2)
        here.send_to("b", 3)
        assert sorted(number for _, number in logs[1].wait(3)) == [1, 2, 3]
        until(lambda: here.subscriber_count("news") == 2, "nobody is seen")
        there.unsubscribe_all("b")
        until(lambda: here.subscriber_count("news") == 1, "nobody leaves")
        log: list[int] = []
        again = there.subscribe_topic("c", "news", lambda topic, m: log.append(m), replay=9)
        asyncio.run(again.ready())
        until(lambda: log == [1], "nothing is replayed")
        assert here.link_state == there.link_state == "connected"
        assert [hub.stats().unreadable for hub in (here, there)] == [0, 0]
    finally:
        server.kill()


def hear_oneself(url: str, trusted: Path) -> subprocess.CompletedProcess[str]:
    """What a process says that trusts a certificate, and gets its own message from a broker."""
    program = f"""
        import asyncio, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from link_tools import Json, follow
        from pagebus import PubSubHub

        hub = PubSubHub(link={url!r}, codec=Json)
        log = asyncio.run(follow(hub, "ann", *"abc"))
        for topic in "abc":
            hub.send_all_on_topic(topic, "hello")
        print(sorted(log.wait(3)))
    """
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        env={"SSL_CERT_FILE": str(trusted)},
        timeout=2 * PATIENCE,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_servers_are_reached_by_tls(kind: str, certificate: Certificate, tmp_path: Path):
    assert REDIS is not None
    (directory := tmp_path / "broker").mkdir()
    broker = KINDS[kind](directory, REDIS, certificate)
    try:
        assert broker.url.startswith("rediss")
        done = hear_oneself(broker.url, certificate.path)
        heard = str([(topic, "hello") for topic in "abc"])
        assert (done.returncode, done.stdout) == (0, f"{heard}\n"), done.stderr
    finally:
        broker.close()


def test_a_server_with_a_certificate_that_nobody_trusts_is_not_talked_to(
    certificate: Certificate, tmp_path: Path, linked: Linked, caplog: pytest.LogCaptureFixture
):
    server = RedisServer(tmp_path, certificate=certificate)
    try:
        hub = linked(link=server.url)
        hub.send_all("secret")
        until(lambda: hub.link_state == "disconnected", "it is talked to")
        until(lambda: "certificate" in caplog.text.lower(), "nobody is told why")
        assert hub.stats().outbox == 1
    finally:
        server.kill()
