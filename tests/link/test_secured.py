"""Servers that ask for a password, and that are reached by TLS."""

import asyncio
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from link_tools import Linked, follow, until
from redis_server import RedisServer, free_port

pytestmark = pytest.mark.link


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


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_a_server_is_reached_by_tls(tmp_path: Path):
    key, certificate = tmp_path / "key", tmp_path / "certificate"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-keyout", key, "-out", certificate, "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost"),
            *("-addext", "basicConstraints=critical,CA:FALSE"),
        ],
        check=True,
        capture_output=True,
    )
    port = free_port()
    tls = ["--tls-port", str(port), "--tls-auth-clients", "no", "--tls-ca-cert-file", certificate]
    tls += ["--tls-cert-file", certificate, "--tls-key-file", key]
    server = RedisServer(tmp_path, *map(str, tls))
    program = f"""
        import asyncio, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from link_tools import Json, follow
        from pagebus import PubSubHub

        hub = PubSubHub(link="rediss://localhost:{port}/0", codec=Json)
        log = asyncio.run(follow(hub, "ann"))
        hub.send_all("hello")
        print(log.wait(1))
    """
    try:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program)],
            capture_output=True,
            text=True,
            env={"SSL_CERT_FILE": str(certificate)},
            timeout=60,
        )
        assert (done.returncode, done.stdout) == (0, "[(None, 'hello')]\n"), done.stderr
    finally:
        server.kill()
