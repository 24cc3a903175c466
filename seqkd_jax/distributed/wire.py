"""Messages between the processes of a command: JSON values in frames, over connections that the system keeps watch on.

A connection ends when its process does, however that ended: the system closes it. A host that vanished answers no
keepalive of the system. So silence of a live process, in a long compilation or one that was paused, is no death.
"""

import asyncio
import json
import socket
import struct
from typing import Any

HEADER = struct.Struct("!4sQ")  # MAGIC, and the bytes that follow
MAGIC = b"sqkd"
HELLO = 2**16  # bytes that a first message may have: who connects is not known yet
ANSWERED = 30  # seconds without an answer to keepalives, or to what was sent, until a host counts as gone


class NotOurs(Exception):
    """What is at the other end speaks otherwise."""


def frame(message: Any) -> bytes:
    """A JSON value as bytes to send."""
    body = json.dumps(message).encode()
    return HEADER.pack(MAGIC, len(body)) + body


async def read(reader: asyncio.StreamReader, most: int = 2**34) -> dict[str, Any]:
    """The next message, an object. EOFError, OSError: the connection is closed. NotOurs: that is no message."""
    magic, size = HEADER.unpack(await reader.readexactly(HEADER.size))
    if magic != MAGIC or size > most:
        raise NotOurs
    body = await reader.readexactly(size)
    try:
        message = json.loads(body)
    except (ValueError, RecursionError):
        raise NotOurs from None
    if not isinstance(message, dict):
        raise NotOurs
    return message


def watch(writer: asyncio.StreamWriter) -> None:
    """Let the system notice that the host at the other end is gone."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", 5),
        ("TCP_KEEPINTVL", 5),
        ("TCP_KEEPCNT", ANSWERED // 5),
        ("TCP_USER_TIMEOUT", ANSWERED * 1000),  # Linux's
        ("TCP_NODELAY", 1),
    ):
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on bytes until either side is closed."""
    try:
        while data := await reader.read(2**16):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
