"""Outputs of records to other programs: UDP, TCP, HTTP with a live page, Lab Streaming Layer.

outputs = open_outputs(Settings(udp="127.0.0.1:5005", http=8000), history)
outputs.state(classes=["fear", "calm"], tr=2.0, decoder="ab12")
outputs.send(line, record)

`send` queues a record and returns. One thread sends datagrams and samples, which never block;
another one serves the clients of TCP and HTTP, each at its own speed. docs/realtime.md describes
what is sent.
"""

import contextlib
import dataclasses
import functools
import pathlib
import queue
import re
import socket
import threading
import urllib.parse
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

from emojax.errors import InputError
from emojax.online.outputs import access, http, tcp
from emojax.online.outputs.hub import History, Hub
from emojax.online.outputs.lsl import Lsl
from emojax.online.outputs.servers import Servers
from emojax.online.outputs.udp import Udp

WAITING = 4096  # records in the queue; beyond that, the oldest are dropped
LOOPBACK = "127.0.0.1"
LOCAL = "localhost", LOOPBACK, "::1"


@dataclasses.dataclass(frozen=True)
class Settings:
    """Destinations of the records; empty ones are off."""

    host: str = LOOPBACK  # host that the servers listen on
    token: str = dataclasses.field(default="", repr=False)  # secret that clients must present
    udp: str = ""  # "host:port" for datagrams
    tcp: int | None = None  # port of the line server; 0 for any free one
    http: int | None = None  # port of the page and of the records over HTTP; 0 for any free one
    lsl: str = ""  # name of the stream
    page: str = ""  # HTML file of the experiment, served as /experiment


def open_outputs(settings: Settings, history: History) -> "Outputs":
    """Opens all outputs.

    Args:
      settings: destinations of the records.
      history: function that yields the lines of the journal's records from a seq on, without
        newlines.

    Raises:
      InputError: a port is in use, the host is unknown or needs a token, or pylsl is missing.
    """
    _check(settings)
    with contextlib.ExitStack() as opened:
        direct: dict[str, Udp | Lsl] = {}
        if settings.udp:
            direct["udp"] = opened.enter_context(contextlib.closing(Udp(settings.udp)))
        if settings.lsl:
            local = access.is_loopback(settings.host)
            direct["lsl"] = opened.enter_context(contextlib.closing(Lsl(settings.lsl, local)))
        sockets = {
            name: opened.enter_context(access.listen(settings.host, port, name))
            for name, port in (("tcp", settings.tcp), ("http", settings.http))
            if port is not None
        }
        outputs = Outputs(settings, direct, sockets, history)
        opened.pop_all()
    return outputs


class Outputs:
    """The outputs of a session; see `open_outputs`. No client, however slow, delays `send`."""

    def __init__(
        self,
        settings: Settings,
        direct: Mapping[str, Udp | Lsl],
        sockets: Mapping[str, socket.socket],
        history: History,
    ):
        """Starts the threads.

        Args:
          settings: destinations of the records.
          direct: outputs that never block.
          sockets: listening sockets that clients connect to.
          history: see `open_outputs`.
        """
        self.on_event: Callable[[dict[str, Any]], None] = lambda event: None
        self.ports = {name: own.getsockname()[1] for name, own in sockets.items()}
        self._settings, self._direct = settings, direct
        self._dropped = Counter(dict.fromkeys((*direct, *sockets), 0))
        self._queue: queue.SimpleQueue = queue.SimpleQueue()  # records; None ends the thread
        self._hub = Hub(history if sockets else lambda first: iter(()))
        pairs = [(own, self._handler(name)) for name, own in sockets.items()]
        self._servers = Servers(self._hub, pairs) if pairs else None
        self._thread = threading.Thread(target=self._work, name="outputs", daemon=True)
        self._thread.start()

    @property
    def page(self) -> str:
        """The address of the live page; "" without one."""
        if "http" not in self.ports:
            return ""
        own = self._settings
        host = f"[{own.host}]" if ":" in own.host else own.host
        query = f"?token={urllib.parse.quote(own.token)}" * bool(own.token)
        return f"http://{host}:{self.ports['http']}/{query}"

    def send(self, record: bytes, values: Mapping[str, Any]) -> None:
        """Queues a record for all outputs.

        Args:
          record: one line of JSON, without its newline.
          values: the record as data, which must not be modified afterwards.
        """
        if self._queue.qsize() >= WAITING:
            with contextlib.suppress(queue.Empty):
                self._queue.get_nowait()
                self._dropped.update(self._dropped.keys())
        self._queue.put((record, values))

    def state(self, **values: Any) -> None:
        """Announces facts of the session: classes, tr (s), decoder (id) and run (session id)."""
        stream = self._direct.get("lsl")
        if isinstance(stream, Lsl) and "classes" in values:
            stream.start(values["classes"], values.get("decoder", ""))
        if self._servers:
            self._servers.call(self._hub.update, values)

    def dropped(self) -> dict[str, int]:
        """Returns the number of records that each output has lost so far, over all its clients."""
        return {name: own + self._hub.dropped[name] for name, own in self._dropped.items()}

    def close(self) -> None:
        """Sends queued records for at most about a second, then ends every connection."""
        self._queue.put(None)
        self._thread.join()
        if self._servers:
            self._servers.close()
        for output in self._direct.values():
            output.close()

    def _work(self) -> None:
        while (entry := self._queue.get()) is not None:
            record, values = entry
            for name, output in self._direct.items():
                try:
                    output.send(record, values)
                except Exception:  # the other outputs continue, whatever it is
                    self._dropped[name] += 1
            if self._servers:
                self._servers.call(self._hub.publish, values["seq"], record)

    def _handler(self, name: str) -> Callable:
        token = self._settings.token
        if name == "tcp":
            return functools.partial(tcp.serve, self._hub, token, lambda e: self.on_event(e))
        page = pathlib.Path(self._settings.page) if self._settings.page else None
        host = self._settings.host
        hosts = (*LOCAL, host) if access.is_loopback(host) else ()
        return functools.partial(http.serve, http.Site(self._hub, token, hosts, page))


def _check(settings: Settings) -> None:
    token = settings.token
    serves = settings.tcp is not None or settings.http is not None
    if serves and not token and not access.is_loopback(settings.host):
        found = f"none, though others can connect to host {settings.host}"
        raise InputError("token", found, "a secret for clients, such as --token=$(uuidgen)")
    if token and not re.fullmatch(r"[!-~]+", token):
        raise InputError("token", "a space, or a letter beyond ASCII", "letters, digits and signs")
    if settings.page and not pathlib.Path(settings.page).is_file():
        raise InputError("page", repr(settings.page), "the HTML file of the experiment")
