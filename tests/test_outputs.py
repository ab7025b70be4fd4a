"""Outputs reach every client in order, and no client is felt by the sender."""

import contextlib
import http.client
import json
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from records import CLASSES, Session, record

from emojax.errors import InputError
from emojax.online.outputs import Settings, open_outputs
from emojax.online.outputs.hub import RECENT


@contextlib.contextmanager
def opened(session=None, state=True, **settings):
    outputs = open_outputs(Settings(**settings), (session or Session()).history)
    try:
        if state:
            outputs.state(classes=CLASSES, tr=2.0, decoder="ab12", run="r1")
        yield outputs
    finally:
        outputs.close()


def connect(outputs, *lines, timeout=5.0):
    client = socket.create_connection(("127.0.0.1", outputs.ports["tcp"]), timeout)
    client.sendall("".join(f"{line}\n" for line in lines).encode())
    return client, client.makefile("rb")


def seqs(file, count):
    return [json.loads(file.readline())["seq"] for _ in range(count)]


def get(outputs, path, method="GET", **headers):
    client = http.client.HTTPConnection("127.0.0.1", outputs.ports["http"], timeout=5)
    with contextlib.closing(client):
        client.request(method, path, headers={k.replace("_", "-"): v for k, v in headers.items()})
        answer = client.getresponse()
        return answer.status, answer.read(), answer.headers


def settle(condition, seconds=5.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def events(outputs, count, query="", **headers):
    """Returns the first events (name, id, data) of a stream."""
    client = http.client.HTTPConnection("127.0.0.1", outputs.ports["http"], timeout=5)
    client.request("GET", "/events" + query, headers=headers)
    answer, found = client.getresponse(), []
    assert answer.headers["Content-Type"] == "text/event-stream"
    while len(found) < count:
        own = {}
        while line := answer.readline().decode().rstrip("\n"):
            name, _, value = line.partition(": ")
            own[name] = value
        if "data" in own:
            found.append((own.get("event", ""), own.get("id", ""), json.loads(own["data"])))
    client.close()
    return found


def test_close_twice():
    with opened(tcp=0, http=0) as outputs:
        outputs.close()


# UDP


def test_a_datagram_for_each_record():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(5)
        session = Session()
        with opened(session, udp=f"127.0.0.1:{receiver.getsockname()[1]}") as outputs:
            session.send(outputs, 3)
            found = [receiver.recv(70_000) for _ in range(3)]
            assert found == session.lines
            long = [f"slice {n:05}.dcm" for n in range(9_000)]
            session.send(outputs, files=long, reasons=["one"])
            short = json.loads(receiver.recv(70_000))
            expected = {k: v for k, v in json.loads(session.lines[-1]).items() if k != "files"}
            assert short == expected
            session.send(outputs, sha256="0" * 70_000)
            settle(lambda: outputs.dropped() == {"udp": 1})


def test_nobody_listens_to_datagrams():
    session = Session()
    with opened(session, udp="127.0.0.1:9") as outputs:
        session.send(outputs, 20)
    assert outputs.dropped()["udp"] == 0


# TCP


def test_a_client_gets_what_comes_from_now_on():
    session = Session(5)
    with opened(session, tcp=0) as outputs:
        client, file = connect(outputs)
        time.sleep(0.2)
        session.send(outputs, 3)
        assert seqs(file, 3) == [5, 6, 7]
        client.close()


@pytest.mark.parametrize("before", [0, 3, RECENT + 700])
def test_get_gives_all_without_gap_or_repeat(before):
    session = Session(before)
    with opened(session, tcp=0) as outputs:
        first = max(0, before - RECENT - 650)
        client, file = connect(outputs, f"GET {first}")
        sender = threading.Thread(target=session.send, args=(outputs, 600))
        sender.start()
        assert seqs(file, before + 600 - first) == list(range(first, before + 600))
        sender.join()
        client.sendall(b"GET -4\n")
        assert seqs(file, 4) == list(range(before + 596, before + 600))
        session.send(outputs)
        assert seqs(file, 1) == [before + 600]
        assert outputs.dropped() == {"tcp": 0}
        client.close()


def test_a_client_that_reads_slowly_and_asks_again():
    """It repeatedly falls behind the memory and catches up from the journal each time."""
    session = Session(RECENT + 900)
    with opened(session, tcp=0, http=0) as outputs:
        slow = socket.socket()
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", outputs.ports["tcp"]))
        slow.sendall(b"GET 0\n")
        file, found = slow.makefile("rb"), []
        for _ in range(6):
            found += seqs(file, 300)
            session.send(outputs, RECENT + 100)
            time.sleep(0.05)
        found += seqs(file, len(session.lines) - len(found))
        assert found == list(range(len(session.lines)))
        for first in (5, 1_000, len(session.lines) - 2):
            slow.sendall(f"GET {first}\n".encode())
            wanted = list(range(first, len(session.lines)))
            assert seqs(file, len(wanted)) == wanted
        slow.close()
        assert outputs.dropped() == {"tcp": 0, "http": 0}


def test_small_records_are_not_held_back():
    session = Session()
    with opened(session, tcp=0) as outputs:
        client, file = connect(outputs, "GET 0")
        took = []
        for _ in range(30):
            start = time.perf_counter()
            session.send(outputs, 2)  # the second one would wait for the answer to the first
            seqs(file, 2)
            took.append(time.perf_counter() - start)
        assert np.median(took) < 0.02
        client.close()


def test_events_of_clients():
    with opened(tcp=0) as outputs:
        found = []

        def take(event):
            if event["label"] == "joy":
                raise InputError("label", "'joy'", "calm or fear")
            found.append(event)

        outputs.on_event = take
        client, file = connect(outputs, "onset 3.0 fear 12", "onset 4 'calm down'", "")
        settle(lambda: len(found) == 2)
        assert found == [
            {"onset": 3.0, "duration": 12.0, "label": "fear", "source": "tcp"},
            {"onset": 4.0, "duration": None, "label": "calm down", "source": "tcp"},
        ]
        wrong = {
            "onset nan fear": "onset: found 'nan'; expected seconds",
            "onset -1 fear": "onset: found '-1'",
            "onset 3 fear inf": "duration: found 'inf'",
            "onset 3": "expected seconds, a label",
            "onset 3 " + "x" * 65: "expected 1 to 64 letters",
            "onset 3 'a\x07b'": "label",
            "onset 3 'fear": "quotation",
            "onset 3 joy": "expected calm or fear",
            "GET x": "GET: found 'x'",
            "HELLO there": "expected GET 0, or onset",
        }
        for line, reason in wrong.items():
            client.sendall(line.encode() + b"\n")
            answer = file.readline().decode()
            assert answer.startswith("error ") and reason in answer, (line, answer)
        client.sendall(b"\xff\xfe\n")
        assert file.readline().startswith(b"error ")
        assert len(found) == 2
        client.sendall(b"x" * 100_000)  # one endless line: only this client is closed
        with contextlib.suppress(ConnectionError):
            assert file.read() == b""
        client, file = connect(outputs, "GET x")
        assert file.readline().startswith(b"error ")


def test_a_token_comes_first():
    session = Session(2)
    with opened(session, tcp=0, token="s3cret") as outputs:
        for line in ("GET 0", "TOKEN wrong", "TOKEN", "TOKEN s3cretx", "\xff"):
            client, file = connect(outputs, line)
            assert file.readline().startswith(b"error the first line"), line
            assert file.readline() == b""
            client.close()
        client, file = connect(outputs, "TOKEN s3cret", "GET 0")
        assert seqs(file, 2) == [0, 1]
        client.close()


# HTTP


def test_pages_and_records(tmp_path):
    own = tmp_path / "task.html"
    own.write_text("<title>task</title>")
    session = Session()
    with opened(session, http=0, page=str(own)) as outputs:
        assert get(outputs, "/latest")[:2] == (204, b"")
        session.send(outputs, 3)
        settle(lambda: get(outputs, "/latest")[1] == session.lines[-1])
        status, body, headers = get(outputs, "/")
        assert status == 200 and b"emojax" in body and "text/html" in headers["Content-Type"]
        assert b"http://" not in body and b"https://" not in body  # nothing from elsewhere
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert get(outputs, "/records?from=1")[1].split(b"\n") == [*session.lines[1:], b""]
        assert get(outputs, "/records?from=-1")[1] == session.lines[-1] + b"\n"
        assert get(outputs, "/experiment")[1] == b"<title>task</title>"
        for path in ("/", "/latest", "/records", "/events"):
            status, body, headers = get(outputs, path, "HEAD")
            assert (status, body) == (200, b""), path
            assert "Access-Control-Allow-Origin" not in headers
        assert get(outputs, "/../../etc/passwd")[0] == 404
        assert get(outputs, "/records?from=x")[0] == 400
        assert get(outputs, "/latest", "POST")[0] == 405
        assert get(outputs, "/latest", Host="evil.example")[0] == 403
        assert get(outputs, "/latest", Host="localhost:1")[0] == 200
        assert get(outputs, "/latest", Host="127.0.0.2")[0] == 403
        with socket.create_connection(("127.0.0.1", outputs.ports["http"])) as client:
            client.sendall(b"nonsense\r\n\r\n")
            assert b" 400 " in client.recv(1000)
    with opened(http=0) as outputs:
        assert get(outputs, "/experiment")[0] == 404


def test_records_from_the_journal():
    session = Session(RECENT + 300)
    with opened(session, http=0) as outputs:
        assert get(outputs, "/latest")[1] == session.lines[-1]  # as after a restart
        assert get(outputs, "/records?from=10")[1].splitlines() == session.lines[10:]


def test_a_token_over_http():
    with opened(Session(1), http=0, token="s3cret") as outputs:
        for path in ("/", "/latest", "/records", "/events", "/nothing"):
            assert get(outputs, path)[0] == 401, path
        assert get(outputs, "/latest?token=s3cre")[0] == 401
        assert get(outputs, "/latest?token=s3cret")[0] == 200
        assert get(outputs, "/latest", Authorization="Bearer s3cret")[0] == 200
        assert outputs.page.endswith(f":{outputs.ports['http']}/?token=s3cret")
        assert "s3cret" not in repr(Settings(token="s3cret"))


def test_events_go_on_where_they_stopped():
    session = Session(RECENT + 100)
    with opened(session, http=0) as outputs:
        (name, _, state), *found = events(outputs, 4, "?from=7")
        assert name == "state" and state["classes"] == list(CLASSES) and state["tr"] == 2.0
        assert [seq for _, seq, _ in found] == ["7", "8", "9"]
        found = events(outputs, 3, "?from=0", **{"Last-Event-ID": "41"})
        assert [seq for _, seq, _ in found] == ["", "42", "43"]
        assert json.dumps(found[1][2]).encode() == session.lines[42]
        found = events(outputs, 3, "?from=-2")
        assert [seq for _, seq, _ in found[1:]] == [str(RECENT + 98), str(RECENT + 99)]


# LSL


def test_samples_of_lsl():
    pylsl = pytest.importorskip("pylsl")
    session = Session()
    with opened(session, state=False, lsl="emojax-test") as outputs:
        session.send(outputs)  # the classes are not known yet
        settle(lambda: outputs.dropped() == {"lsl": 1})
        outputs.state(classes=CLASSES, decoder="ab12")
        streams = pylsl.resolve_byprop("name", "emojax-test", 1, 10)
        assert streams, "the stream is not announced"
        inlet = pylsl.StreamInlet(streams[0])
        inlet.open_stream(10)
        info = inlet.info()
        channel, labels = info.desc().child("channels").child("channel"), []
        while not channel.empty():
            labels.append(channel.child_value("label"))
            channel = channel.next_sibling()
        assert labels == [
            *("seq", "volume", "status", "p calm", "p fear"),
            *("log-odds calm", "log-odds fear", "feedback"),
        ]
        assert info.desc().child_value("decoder") == "ab12"
        session.send(outputs)
        session.send(outputs, status="missing")
        found = [inlet.pull_sample(5)[0] for _ in range(2)]
        np.testing.assert_allclose(found[0], [1, 2, 0, 0.25, 0.75, -1.5, 1.5, 0.5])
        np.testing.assert_allclose(found[1], [2, 3, 2, *[np.nan] * 5])
        inlet.close_stream()


def test_lsl_that_is_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "pylsl", None)
    with pytest.raises(InputError, match="pip install pylsl"):
        open_outputs(Settings(lsl="x"), Session().history)


# Clients that misbehave


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def test_clients_that_vanish_leave_nothing_behind():
    session = Session(50)
    with opened(session, tcp=0, http=0) as outputs:
        get(outputs, "/latest")
        settle(lambda: threading.active_count() > 0)
        before = descriptors(), threading.active_count()
        for n in range(200):
            client = socket.create_connection(("127.0.0.1", outputs.ports["tcp"]))
            if n % 2:
                client.sendall(b"GET 0\n")
            if n % 3 == 0:  # a reset instead of a farewell
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            client = socket.create_connection(("127.0.0.1", outputs.ports["http"]))
            client.sendall(
                b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"[: 60 if n % 2 else 20]
            )
            client.close()
            if n % 20 == 0:
                session.send(outputs)
        settle(lambda: (descriptors(), threading.active_count()) <= before)
        client, file = connect(outputs, "GET -1")
        assert seqs(file, 1) == [59]
        client.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("outputs")]


def test_a_client_that_never_reads(capfd):
    session = Session()
    pad = {"sha256": "0" * 2_000}
    with opened(session, tcp=0, http=0, udp="127.0.0.1:9") as outputs:
        stuck = socket.socket()
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.connect(("127.0.0.1", outputs.ports["tcp"]))
        reader, file = connect(outputs, "GET 0")
        time.sleep(0.2)
        found = []
        reading = threading.Thread(target=lambda: found.extend(seqs(file, 2_000)))
        reading.start()
        took = []
        for seq in range(2_000):
            values = record(seq, **pad)
            line = json.dumps(values).encode()
            session.lines.append(line)
            start = time.perf_counter()
            outputs.send(line, values)
            took.append(time.perf_counter() - start)
            if seq % 100 == 0:
                time.sleep(0.02)  # the loop waits for the next file
        reading.join(20)
        assert found == list(range(2_000))
        assert outputs.dropped()["tcp"] > 500 and outputs.dropped()["udp"] == 0
        assert np.percentile(took, 99) < 2e-3
        start = time.perf_counter()
        stuck_left = stuck
    assert time.perf_counter() - start < 4
    assert capfd.readouterr() == ("", "")
    stuck_left.close()
    reader.close()


def test_nonsense_of_clients_is_survived(capfd):
    rng = np.random.default_rng(0)
    starts = (
        b"",
        b"GET ",
        b"GET / HTTP/1.1\r\nHost: ",
        b"onset 1 ",
        b"TOKEN ",
        b"HEAD /events?from=",
    )
    odd = [
        b"GET /events?from=" + b"9" * 5_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
        b"GET /%ff?token=%ff HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"GET /latest HTTP/1.1\r\n" + b"X: y\r\n" * 50_000,
        b"GET 1" + b"0" * 30 + b"\nGET -1" + b"0" * 30 + b"\n" + b"GET 0\n" * 5_000,
        b"\n" * 50_000 + b"'\n" * 1_000,
    ]
    odd += [starts[n % 6] + rng.bytes(1 + n**2 // 4) + b"\r\n\r\n" for n in range(120)]
    session = Session(3)
    with opened(session, tcp=0, http=0) as outputs:
        for words in odd:
            for port in outputs.ports.values():
                client = socket.create_connection(("127.0.0.1", port))
                with client, contextlib.suppress(ConnectionError):
                    client.sendall(words)
        client, file = connect(outputs, "GET 0")
        assert seqs(file, 3) == [0, 1, 2]
        assert get(outputs, "/latest")[1] == session.lines[-1]
        client.close()
    assert capfd.readouterr() == ("", "")


def test_more_clients_than_are_served():
    session = Session(1)
    with opened(session, tcp=0) as outputs:
        clients = [connect(outputs) for _ in range(260)]
        time.sleep(0.3)
        session.send(outputs)
        served = sum(b"seq" in file.readline() for _, file in clients)
        assert served == 256
        for client, _ in clients:
            client.close()


def test_the_last_record_is_not_lost_at_the_end():
    session = Session()
    with opened(session, tcp=0, http=0) as outputs:
        client, file = connect(outputs, "GET 0")
        time.sleep(0.2)
        session.send(outputs, 50)
    assert seqs(file, 50) == list(range(50))
    assert file.readline() == b""
    client.close()


# What a user hands in


def test_bad_settings_end_before_anything_starts(tmp_path):
    taken = socket.create_server(("127.0.0.1", 0))
    port = taken.getsockname()[1]
    before = descriptors(), threading.active_count()
    wrong = {
        f"port {port} of 127.0.0.1": Settings(tcp=0, http=port),
        "port 70000": Settings(tcp=70_000),
        "token: found none": Settings(host="0.0.0.0", http=0),
        "host: found host": Settings(host="no-such-host.invalid", tcp=0),
        "udp: found '5005'": Settings(udp="5005"),
        "udp: found 'localhost:x'": Settings(udp="localhost:x"),
        "udp: found 'localhost:0'": Settings(udp="localhost:0"),
        "udp: found host 'no-such-host.invalid'": Settings(udp="no-such-host.invalid:5005"),
        "page: found": Settings(http=0, page=str(tmp_path / "none.html")),
        "token: found a space": Settings(tcp=0, token="two words"),
    }
    for message, settings in wrong.items():
        with pytest.raises(InputError, match=message) as error:
            open_outputs(settings, Session().history)
        assert "\n" not in str(error.value)
    assert (descriptors(), threading.active_count()) == before
    taken.close()


def test_no_outputs_at_all():
    session = Session()
    with opened(session) as outputs:
        session.send(outputs, 1_000)
    assert outputs.dropped() == {} and outputs.ports == {} and outputs.page == ""


# The clients of examples/clients

CLIENTS = pathlib.Path(__file__).parents[1] / "examples" / "clients"


@contextlib.contextmanager
def running(*words):
    process = subprocess.Popen([*map(str, words)], stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout
    finally:
        process.kill()
        process.communicate()


def test_the_client_in_python_survives_a_restart():
    session = Session(3)
    with opened(session, tcp=0) as outputs:
        port = outputs.ports["tcp"]
        words = sys.executable, CLIENTS / "client.py", port
        with running(*words) as lines:
            found = [lines.readline() for _ in range(3)]
            outputs.close()
            session.lines.extend(Session(5).lines[3:])
            with opened(session, tcp=port) as again:
                found += [lines.readline() for _ in range(2)]
                session.send(again, status="missing")
                found.append(lines.readline())
    assert found == [*(f"{n} ok fear 0.5\n" for n in range(1, 6)), "6 missing  None\n"]


def test_the_client_in_cpp(tmp_path):
    if not (compiler := shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("no C++ compiler is installed")
    program = tmp_path / "client"
    words = [compiler, "-Wall", "-Wextra", "-Werror", "-o", program, CLIENTS / "client.cpp"]
    subprocess.run(words, check=True)
    session = Session(2)
    with opened(session, tcp=0) as outputs, running(program, outputs.ports["tcp"]) as lines:
        session.send(outputs, feedback=-0.25)
        assert [lines.readline() for _ in range(3)] == ["0.5\n", "0.5\n", "-0.25\n"]


def test_clients_are_short():
    for path in CLIENTS.iterdir():
        assert len(path.read_text().splitlines()) <= 32, path
