"""Output of records as UDP datagrams to one address."""

import socket
from collections.abc import Mapping
from typing import Any

from emojax.online.outputs import access
from emojax.online.watching import journal

LONGEST = 65_507  # bytes of a datagram
LEFT_OUT = "files", "reasons"  # keys that a longer record loses


class Udp:
    """A sender of records, whether or not anybody listens."""

    def __init__(self, address: str):
        """Args: "host:port"."""
        family, self._address = access.target(address)
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def send(self, record: bytes, values: Mapping[str, Any]) -> None:
        """Sends a record; raises OSError if that fails."""
        for name in LEFT_OUT:
            if len(record) > LONGEST:
                values = {key: value for key, value in values.items() if key != name}
                record = journal.plain(values)
        self._socket.sendto(record, self._address)

    def close(self) -> None:
        """Closes the socket."""
        self._socket.close()
