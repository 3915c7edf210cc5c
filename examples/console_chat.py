"""A chat for the terminal, without Flet: ``python examples/console_chat.py ann`` in each terminal.

The first one in hosts the chat. Commands: /join ROOM, /leave, /quit; everything else is said in
the room that you are in, or to everybody.
"""

import argparse
import socket
import socketserver
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count

from pagebus import PubSub, PubSubHub

# A guest whose connection is slow blocks one of these threads, and nobody else.
hub = PubSubHub(executor=ThreadPoolExecutor(max_workers=8))
session_numbers = count(1)


class Guest(socketserver.StreamRequestHandler):
    """One connection: a session of the hub. The first line is the guest's name."""

    def handle(self) -> None:
        self.room = ""
        self.name = self.rfile.readline().decode().strip() or "somebody"
        self.pubsub = PubSub(hub, f"{self.name} {next(session_numbers)}")
        self.pubsub.subscribe(self.show)
        self.pubsub.send_all(f"* {self.name} is here")
        try:
            for line in self.lines():
                self.obey(line)
        finally:
            self.pubsub.unsubscribe_all()
            self.pubsub.send_all(f"* {self.name} is gone")

    def lines(self) -> Iterator[str]:
        for line in self.rfile:
            if text := line.decode(errors="replace").strip():
                yield text

    def obey(self, line: str) -> None:
        command, _, room = line.partition(" ")
        if command == "/join" and room:
            self.leave()
            self.room = room
            self.pubsub.subscribe_topic(room, self.show_in_room)
            self.pubsub.send_all_on_topic(room, f"* {self.name} joined")
        elif command == "/leave":
            self.leave()
        elif self.room:
            self.pubsub.send_all_on_topic(self.room, f"{self.name}: {line}")
        else:
            self.pubsub.send_all(f"{self.name}: {line}")

    def leave(self) -> None:
        if self.room:
            self.pubsub.send_others_on_topic(self.room, f"* {self.name} left")
            self.pubsub.unsubscribe_topic(self.room)
            self.room = ""

    def show(self, message: str) -> None:
        self.wfile.write(f"{message}\n".encode())

    def show_in_room(self, room: str, message: str) -> None:
        self.show(f"[{room}] {message}")


class Server(socketserver.ThreadingTCPServer):
    """A thread for each guest, which reads; what a guest is shown is written by the hub."""

    allow_reuse_address = True
    daemon_threads = True


def host(port: int) -> tuple[str, int]:
    """Host the chat on a thread, if nobody does yet; return the address."""
    try:
        server = Server(("127.0.0.1", port), Guest)
    except OSError:
        return "127.0.0.1", port
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = "127.0.0.1", server.socket.getsockname()[1]
    print(f"* hosting the chat on port {address[1]}", flush=True)
    return address


def print_lines(connection: socket.socket) -> None:
    with connection.makefile() as lines:
        for line in lines:
            print(line, end="", flush=True)
    print("* goodbye", flush=True)


def chat(name: str, address: tuple[str, int]) -> None:
    with socket.create_connection(address) as connection:
        reader = threading.Thread(target=print_lines, args=(connection,), daemon=True)
        reader.start()
        connection.sendall(f"{name}\n".encode())
        for line in sys.stdin:
            if line.strip() == "/quit":
                break
            connection.sendall(line.encode())
        connection.shutdown(socket.SHUT_WR)
        reader.join()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Chat in the terminal.")
    parser.add_argument("name", help="what the others call you")
    parser.add_argument("--port", type=int, default=8765, help="0 picks a free one")
    arguments = parser.parse_args()
    chat(arguments.name, host(arguments.port))
