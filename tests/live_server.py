"""A process that serves records from a file, and one more whenever a line comes in on stdin.

python live_server.py PORT FILE: the line is JSON, laid over the record; "count" sends several.
"""

import json
import pathlib
import sys
import time

from records import CLASSES, record

from emojax.online.outputs import Settings, open_outputs


def main(port, path):
    path.touch()
    outputs = open_outputs(
        Settings(http=port), lambda first: iter(path.read_bytes().splitlines()[first:])
    )
    outputs.state(classes=CLASSES, tr=2.0, decoder="ab12cd34", run=path.name)
    print(outputs.ports["http"], flush=True)
    for text in sys.stdin:
        more = json.loads(text)
        for _ in range(more.pop("count", 1)):
            seq = len(path.read_bytes().splitlines())
            values = record(seq, more.get("status", "ok")) | more
            line = json.dumps(values).encode()
            with path.open("ab") as file:
                file.write(line + b"\n")
            outputs.send(line, values)
    time.sleep(0.2)
    outputs.close()


if __name__ == "__main__":
    main(int(sys.argv[1]), pathlib.Path(sys.argv[2]))
