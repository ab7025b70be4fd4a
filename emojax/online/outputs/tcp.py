"""Records over TCP, one line of JSON each, and commands of clients, one line each.

TOKEN xxx                  first, if a token is required
GET 10                     all records from seq 10 on, then new ones (GET -300: the last 300)
onset 3.0 fear 12          a condition starts 3 s after volume 1 (and lasts 12 s)

An invalid line is answered by "error " and the reason.
"""

import asyncio
import contextlib
import math
import shlex
from collections.abc import Callable

from emojax.errors import InputError, one_line
from emojax.online.outputs.access import same
from emojax.online.outputs.hub import Client, Hub
from emojax.online.outputs.servers import first_of, flush

FIRST_LINE_S = 0.1  # a GET within this time precedes the first live record
TOKEN_S = 10.0
IDLE_S = 5.0
LONGEST_LABEL = 64
WORDS = "GET 0, or onset 3.0 fear 12"

OnEvent = Callable[[dict], None]


async def serve(
    hub: Hub,
    token: str,
    on_event: OnEvent,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    """Serves one client until it leaves or the session ends."""
    if token and not await _knows(token, reader):
        writer.write(b"error the first line must be TOKEN and the right token\n")
        return
    with hub.client("tcp", hub.newest + 1) as client:

        def obey(line: bytes) -> None:
            if error := _obey(line, hub, client, on_event):
                writer.write(f"error {error}\n".encode())

        async def listen() -> None:
            while line := await reader.readline():
                obey(line)

        async def send() -> None:
            while (batch := await hub.take(client, IDLE_S)) or not hub.closed:
                writer.write(b"".join(line + b"\n" for _, line in batch))
                await flush(writer)

        line = b""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(FIRST_LINE_S):
                line = await reader.readline()
        client.replay = False  # until the client sends GET
        obey(line)
        await first_of(listen(), send())


def event(words: list[str]) -> dict:
    """Returns the event of the words "onset", seconds, label and optionally a duration."""
    if len(words) not in (3, 4):
        raise InputError("onset", " ".join(words[1:]), "seconds, a label, optionally a duration")
    label = words[2]
    if not label.isprintable() or not 0 < len(label) <= LONGEST_LABEL:
        raise InputError("label", repr(label), f"1 to {LONGEST_LABEL} letters")
    duration = _seconds("duration", words[3]) if len(words) == 4 else None
    return {
        "onset": _seconds("onset", words[1]),
        "duration": duration,
        "label": label,
        "source": "tcp",
    }


def _obey(line: bytes, hub: Hub, client: Client, on_event: OnEvent) -> str:
    """Carries out the command in a line; returns the reason if that fails, else ""."""
    try:
        match shlex.split(line.decode()):
            case []:
                pass
            case ["GET", first]:
                hub.rewind(client, _whole(first))
            case ["onset", *_] as words:
                on_event(event(words))
            case words:
                raise InputError("line", words[0], WORDS)
    except ValueError as error:
        return one_line(error)
    return ""


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError("GET", repr(text), "a seq such as 0") from None


def _seconds(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise InputError(name, repr(text), "seconds, such as 3.0")
    return value


async def _knows(token: str, reader: asyncio.StreamReader) -> bool:
    async with asyncio.timeout(TOKEN_S):
        line = await reader.readline()
    word, _, given = line.decode(errors="replace").strip().partition(" ")
    return word == "TOKEN" and same(token, given.strip())
