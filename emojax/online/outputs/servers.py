"""The thread that serves all clients of TCP and HTTP."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from emojax.online.outputs.hub import Hub

MOST_CLIENTS = 256  # of one server
LONGEST_LINE = 1 << 14  # bytes
STUCK_S = 60.0  # after which a client that reads nothing is disconnected
FAREWELL_S = 1.0  # for clients to read the remaining records

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Servers:
    """The thread of the servers, which clients of any speed share without delaying a session."""

    def __init__(self, hub: Hub, listeners: list[tuple[socket.socket, Handler]]):
        """Args: the records, and for each bound socket the function that serves a client."""
        self._hub = hub
        self._loop = asyncio.new_event_loop()
        self._stopped = asyncio.Event()
        serving = self._serve(listeners)
        self._thread = threading.Thread(target=self._run, args=(serving,), name="outputs: clients")
        self._thread.daemon = True
        self._thread.start()

    def call(self, function: Callable[..., object], *args: Any) -> None:
        """Schedules a call of a function in the thread."""
        self._loop.call_soon_threadsafe(function, *args)

    def close(self) -> None:
        """Lets clients read the remaining records, then ends all connections and the thread."""
        if self._thread.is_alive():
            self.call(self._stopped.set)
        self._thread.join()

    def _run(self, serving: Coroutine) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(serving)

    async def _serve(self, listeners: list[tuple[socket.socket, Handler]]) -> None:
        servers = [await _start(*listener) for listener in listeners]
        await self._stopped.wait()
        for server in servers:
            server.close()
        self._hub.close()
        if clients := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(clients, timeout=FAREWELL_S)


async def first_of(*tasks: Coroutine[Any, Any, None]) -> None:
    """Runs tasks concurrently until one ends; the others are cancelled."""
    running = [asyncio.create_task(task) for task in tasks]
    try:
        done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def flush(writer: asyncio.StreamWriter) -> None:
    """Waits until a client has room for more; one that reads nothing for too long is given up.

    Python 3.12's `writelines` never makes `drain` wait, hence `write` everywhere.
    """
    async with asyncio.timeout(STUCK_S):
        await writer.drain()


async def _start(listener: socket.socket, handler: Handler) -> asyncio.Server:
    connected: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.add(writer)
        try:
            if len(connected) <= MOST_CLIENTS:
                await handler(reader, writer)
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError):
            pass  # the client has left, or sent an invalid request
        except asyncio.CancelledError:
            writer.transport.abort()  # the session has ended, and the client reads no more
        finally:
            connected.discard(writer)
            await _close(writer)

    return await asyncio.start_server(serve, sock=listener, limit=LONGEST_LINE)


async def _close(writer: asyncio.StreamWriter) -> None:
    try:
        writer.close()
        with contextlib.suppress(OSError):
            async with asyncio.timeout(FAREWELL_S):
                await writer.wait_closed()
    finally:
        writer.transport.abort()  # otherwise a client that reads nothing would stay connected
