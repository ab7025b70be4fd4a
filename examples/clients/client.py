"""Receives the records of `emojax watch ... --tcp=5005`, and reconnects if the connection breaks.

In PsychoPy, `for record in records(): latest = record` runs in a thread, and each frame of the
display reads `latest`.
"""

import json
import socket
import sys
import time


def records(port=5005, host="127.0.0.1", token="", first=0):
    """Yields each record once, from seq `first` on."""
    while True:
        try:
            with socket.create_connection((host, port)) as server:
                words = f"TOKEN {token}\n" * bool(token) + f"GET {first}\n"
                server.sendall(words.encode())
                for line in server.makefile(encoding="utf-8"):
                    record = json.loads(line)
                    first = record["seq"] + 1  # resumes here after a reconnect
                    yield record
        except OSError:
            time.sleep(0.5)


if __name__ == "__main__":
    for record in records(int(sys.argv[1])):
        print(
            record["volume"], record["status"], record["decision"], record["feedback"], flush=True
        )
