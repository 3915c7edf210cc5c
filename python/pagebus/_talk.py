"""The commands that talk to linked hubs: ``pagebus send`` and ``pagebus listen``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from pagebus._core import PubSub, PubSubHub
from pagebus._default import link_of_the_environment
from pagebus._publisher import Publisher


def add_commands(commands: Any) -> None:
    """Add the commands to a parser."""
    send = commands.add_parser(
        "send",
        help="send a message to the sessions of linked hubs",
        description="Send a message to the sessions of linked hubs, and wait until that is done.",
    )
    to = send.add_mutually_exclusive_group()
    to.add_argument("--topic", help="send it on this topic; default: to all")
    to.add_argument("--to", metavar="SESSION", help="send it to this session alone")
    send.add_argument("message", metavar="JSON", help="the message, as JSON")
    send.set_defaults(do=_send)
    listen = commands.add_parser(
        "listen",
        help="print what is sent on linked hubs",
        description="Print what is sent, one line of JSON each, until Ctrl-C.",
    )
    listen.add_argument("--topic", help="listen on this topic; default: to what is sent to all")
    listen.set_defaults(do=_listen)
    for command in (send, listen):
        command.add_argument(
            "--link",
            metavar="URL",
            default=link_of_the_environment(),
            help="the Redis or Valkey server; default: the environment variable PAGEBUS_LINK",
        )
        command.add_argument(
            "--namespace",
            default="default",
            help="that of the hubs; of a Flet app it is the module and name of its main",
        )


def run(options: argparse.Namespace) -> int:
    """Do what one of the commands is for, and return the exit status."""
    if not options.link:
        print("pagebus: say --link, or set PAGEBUS_LINK", file=sys.stderr)
        return 2
    try:
        return int(options.do(options))
    except ValueError as error:
        print(f"pagebus: {error}", file=sys.stderr)
        return 2


def _send(options: argparse.Namespace) -> int:
    message = json.loads(options.message)
    publisher = Publisher(options.link, namespace=options.namespace)
    if options.to is not None:
        publisher.send_to(options.to, message)
    elif options.topic is not None:
        publisher.send_all_on_topic(options.topic, message)
    else:
        publisher.send_all(message)
    return 1 if publisher.close() else 0


def _listen(options: argparse.Namespace) -> int:
    hub = PubSubHub(link=options.link, namespace=options.namespace)
    listener = PubSub(hub, f"pagebus listen {os.getpid()}")
    try:
        with listener.listen(options.topic) as messages:
            for message in messages:
                print(_line(message), flush=True)
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        # Whoever reads has had enough, and what Python still has to write is to go nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _line(message: Any) -> str:
    try:
        return json.dumps(message, default=repr)
    except (TypeError, ValueError, RecursionError):
        # A key that is a tuple, say: not everything that travels is JSON.
        return json.dumps(repr(message))
