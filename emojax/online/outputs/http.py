"""Records over HTTP, and the live page.

/                the live page
/latest          the last record (204 if there is none yet)
/records?from=n  lines of JSON: all records so far from seq n on (-300: the last 300)
/events?from=n   server-sent events: the same, then new ones; "Last-Event-ID" resumes after it
/experiment      the page of an experiment (`Settings.page`), which may read all of these

A token is sent as "?token=..." or "Authorization: Bearer ...".
"""

import asyncio
import http
import json
import pathlib
import urllib.parse
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from emojax.online.outputs.access import same
from emojax.online.outputs.hub import Client, Hub
from emojax.online.outputs.servers import first_of, flush

PAGE = pathlib.Path(__file__).with_name("page.html")
REQUEST_S = 10.0
IDLE_S = 5.0  # without a record, after which a keep-alive event is sent
HTML, JSON = "text/html; charset=utf-8", "application/json"
LINES, EVENTS, TEXT = "application/x-ndjson", "text/event-stream", "text/plain"
RETRY_MS = 500  # before a browser reconnects
NOTHING: Mapping[str, str] = MappingProxyType({})
SAFE = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Connection": "close",
}
OWN_PAGE = {  # loads nothing from other sites, and sends nothing to them
    "Content-Security-Policy": "default-src 'none'; connect-src 'self'; img-src data:; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'; frame-ancestors 'self'"
}


class Site(NamedTuple):
    """The content and settings of the server."""

    hub: Hub
    token: str  # "" if none is required
    hosts: tuple[str, ...]  # accepted host names of this server; () accepts any
    page: pathlib.Path | None  # page of the experiment


class Request(NamedTuple):
    """One request of a client."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]  # by lower-case name


class Refused(Exception):
    """A request that is answered with a status alone."""


async def serve(site: Site, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers one request; an event stream lasts until the client leaves or the session ends."""
    try:
        request = await _read(reader)
        _check(site, request)
        if request.path == "/events":
            await _events(site.hub, request, reader, writer)
        elif request.path == "/records":
            await _records(site.hub, request, writer)
        else:
            kind, body, more = await asyncio.to_thread(_content, site, request.path)
            status = http.HTTPStatus.OK if body else http.HTTPStatus.NO_CONTENT
            writer.write(_head(status, kind, more | {"Content-Length": str(len(body))}))
            writer.write(body if request.method == "GET" else b"")
            await flush(writer)
    except Refused as refused:
        status = http.HTTPStatus(refused.args[0])
        more = {"WWW-Authenticate": "Bearer"} if status == http.HTTPStatus.UNAUTHORIZED else {}
        writer.write(_head(status, TEXT, more) + f"{status.value} {status.phrase}\n".encode())


def _content(site: Site, path: str) -> tuple[str, bytes, dict[str, str]]:
    if path == "/":
        return HTML, PAGE.read_bytes(), OWN_PAGE
    if path == "/latest":
        return JSON, site.hub.latest, {}
    if path == "/experiment" and site.page:
        return HTML, site.page.read_bytes(), {}
    raise Refused(http.HTTPStatus.NOT_FOUND)


async def _records(hub: Hub, request: Request, writer: asyncio.StreamWriter) -> None:
    with hub.client("http", _first(request.query.get("from", "0"))) as client:
        writer.write(_head(http.HTTPStatus.OK, LINES))
        while request.method == "GET" and (batch := await hub.take(client, patience=0)):
            writer.write(b"".join(line + b"\n" for _, line in batch))
            await flush(writer)


async def _events(
    hub: Hub, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    first = _first(request.query.get("from", str(hub.newest + 1)))
    if last := request.headers.get("last-event-id"):
        first = _first(last) + 1
    writer.write(_head(http.HTTPStatus.OK, EVENTS))
    if request.method == "HEAD":
        return

    async def until_it_leaves() -> None:
        while await reader.read(1024):
            pass

    with hub.client("http", first) as client:
        await first_of(until_it_leaves(), _send_events(hub, client, writer))


async def _send_events(hub: Hub, client: Client, writer: asyncio.StreamWriter) -> None:
    writer.write(f"retry: {RETRY_MS}\n\n".encode())
    told = None
    while True:
        if told is not hub.state:
            told = hub.state
            writer.write(b"event: state\ndata: %b\n\n" % json.dumps(told).encode())
        batch = await hub.take(client, IDLE_S)
        writer.write(b"".join(b"id: %d\ndata: %b\n\n" % entry for entry in batch))
        if not batch:
            writer.write(b"event: %b\ndata: {}\n\n" % (b"end" if hub.closed else b"alive"))
        await flush(writer)
        if not batch and hub.closed:
            return


async def _read(reader: asyncio.StreamReader) -> Request:
    async with asyncio.timeout(REQUEST_S):
        text = await reader.readuntil(b"\r\n\r\n")
    line, *lines = text.decode("latin-1").strip().split("\r\n")
    match line.split(" "):
        case [method, address, version] if version.startswith("HTTP/1."):
            path, _, query = address.partition("?")
        case _:
            raise Refused(http.HTTPStatus.BAD_REQUEST)
    headers = (line.partition(":") for line in lines)
    return Request(
        method,
        path,
        dict(urllib.parse.parse_qsl(query)),
        {name.strip().lower(): value.strip() for name, _, value in headers},
    )


def _check(site: Site, request: Request) -> None:
    if site.hosts:  # guards against DNS rebinding
        try:
            name = urllib.parse.urlsplit("//" + request.headers.get("host", "")).hostname
        except ValueError:
            name = None
        if name not in site.hosts:
            raise Refused(http.HTTPStatus.FORBIDDEN)
    bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
    if site.token and not same(site.token, request.query.get("token", bearer)):
        raise Refused(http.HTTPStatus.UNAUTHORIZED)
    if request.method not in ("GET", "HEAD"):
        raise Refused(http.HTTPStatus.METHOD_NOT_ALLOWED)


def _first(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise Refused(http.HTTPStatus.BAD_REQUEST) from None


def _head(status: http.HTTPStatus, kind: str, more: Mapping[str, str] = NOTHING) -> bytes:
    fields = {"Content-Type": kind} | SAFE | dict(more)
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status.value} {status.phrase}\r\n{lines}\r\n".encode()
