"""Addresses of outputs and servers, and the token of clients."""

import hmac
import ipaddress
import socket

from emojax.errors import InputError

EXAMPLE = "an address such as 127.0.0.1:5005"
SEND_BUFFER = 1 << 16  # bytes in the kernel for each client; small, so that backlogs stay short


def resolve(
    host: str, port: int, kind: socket.SocketKind, where: str
) -> tuple[socket.AddressFamily, tuple]:
    """Returns the family and the address of a host."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=kind)[0]
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        found = f"host {host!r} ({reason})"
        raise InputError(where, found, "the name or address of a machine") from error
    return family, address


def target(text: str) -> tuple[socket.AddressFamily, tuple]:
    """Returns the family and the address of "host:port" (of IPv6: "[host]:port")."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        raise InputError("udp", repr(text), EXAMPLE)
    return resolve(host, int(port), socket.SOCK_DGRAM, "udp")


def is_loopback(host: str) -> bool:
    """Returns whether only this machine can connect to a host's address."""
    _, address = resolve(host, 0, socket.SOCK_STREAM, "host")
    return ipaddress.ip_address(address[0].partition("%")[0]).is_loopback


def listen(host: str, port: int, where: str) -> socket.socket:
    """Returns a socket that accepts clients; port 0 takes any free one."""
    if not 0 <= port < 65536:
        raise InputError(where, f"port {port}", "a port from 0 (any free one) to 65535")
    family, address = resolve(host, port, socket.SOCK_STREAM, where)
    try:
        server = socket.create_server(address[:2], family=family, backlog=128)
    except OSError as error:
        found = f"port {port} of {host} ({error.strerror})"
        raise InputError(where, found, "a port that is free; 0 takes any") from error
    server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, True)  # accepted sockets inherit both
    return server


def same(token: str, given: str) -> bool:
    """Returns whether a token is right, in constant time."""
    return hmac.compare_digest(token.encode(), given.encode(errors="replace"))
