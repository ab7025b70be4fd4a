"""Records as they go over the wire, and a journal to replay them from."""

import json
import time

CLASSES = "calm", "fear"


def record(seq, status="ok", **more):
    now = time.time()
    p = {"calm": 0.25, "fear": 0.75}
    evidence = {"window": 0, "volumes": 2.0, "log_odds": {"calm": -1.5, "fear": 1.5}, "p": p}
    found = {"p": p, "decision": "fear", "evidence": evidence | {"decision": ""}, "feedback": 0.5}
    if status in ("missing", "unreadable"):
        found = {"p": None, "decision": "", "evidence": None, "feedback": None}
    own = {"kind": "volume", "seq": seq, "volume": seq + 1, "status": status, "reasons": []}
    own |= {"time_scan": None, "time_closed": now - 0.01, "time_ready": now, "time_decoded": now}
    own |= found | {"motion": None, "fd_mm": 0.1, "gain": 1.0, "offset": 0.0, "correlation": 0.999}
    own |= {"aligned": 0.999, "stages_ms": {"wait": 1.0}, "missed": 0, "decoder": "ab12"}
    own |= {"files": [f"v{seq:05}.nii"], "sha256": "0" * 64, "pose": None}
    return own | {"time_sent": now, "line": "0" * 64} | more


class Session:
    """A journal in memory, written before each record is sent, as `emojax watch` does."""

    def __init__(self, count=0):
        self.lines = [json.dumps(record(seq)).encode() for seq in range(count)]

    def history(self, first):
        return iter(self.lines[first:])

    def send(self, outputs, count=1, status="ok", **more):
        for _ in range(count):
            values = record(len(self.lines), status, **more)
            self.lines.append(json.dumps(values).encode())
            outputs.send(self.lines[-1], values)
