"""Kills `emojax watch` again and again while a run arrives; its journal must not show it.

    python tests/acceptance/watch_kill9.py CHECKOUT --kills 20

A made-up run is written into a folder by `emojax simulate`. One session watches it undisturbed. A
second one is killed with -9 at random moments and started again by the same command. In the end
both journals must hold the same records except times and hashes, the chain of each must be whole,
and a listener must have got every record, with one content for each number. The decoder corrects
motion and has a memory (`data.online`), so that a restart has to find its state again.
"""

import argparse
import json
import pathlib
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

VOLUMES = 50  # for each kill
EVERY = 0.2  # s between two of them
PATIENCE = 120.0  # s for a session to come to its end
LEAST, MOST = 0.2, 3.0  # s from the first sign of life to a kill


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("checkout", type=pathlib.Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    sys.path[:0] = [str(given.checkout), str(given.checkout / "tests")]
    with tempfile.TemporaryDirectory() as folder:
        Trial(given.checkout, pathlib.Path(folder), given.kills, random.Random(given.seed)).run()


class Trial:
    """One run, watched twice."""

    def __init__(self, checkout, folder, kills, chance):
        self.checkout, self.folder, self.kills, self.chance = checkout, folder, kills, chance
        self.count = VOLUMES * max(kills, 1)
        self.scans = folder / "scans"
        self.scans.mkdir()

    def run(self):
        self.make()
        listener = Listener()
        scanner = self.simulate()
        restarts = self.killed(self.folder / "killed", listener)
        assert scanner.wait() == 0, "the simulator failed"
        self.finish(self.folder / "whole")
        self.compare(listener)
        print(f"{restarts} kills in {self.count} volumes: records and chain as without")

    def make(self):
        import nibabel as nib
        import numpy as np
        from tiny_decoder import AFFINE, made

        from emojax.decoder import bundle

        decoder, later, _ = made(online_text="gain+cumulative")
        bundle.save(decoder, self.folder / "decoder")
        run = np.moveaxis(later.round().astype(np.int16), 0, -1)
        nib.save(nib.Nifti1Image(run, AFFINE), self.folder / "run.nii")
        self.repeats = -(-self.count // run.shape[-1])
        self.count = self.repeats * run.shape[-1]

    def command(self, *words):
        return [sys.executable, "-m", "emojax", *map(str, words)]

    def simulate(self):
        words = ("simulate", self.folder / "run.nii", self.scans, f"--tr={EVERY}")
        return subprocess.Popen(
            self.command(*words, "--speed=1", f"--repeat={self.repeats}"), cwd=self.checkout
        )

    def watch(self, out, *words):
        own = ("watch", self.folder / "decoder", self.scans, f"--out={out}", "--quiet", "--tr=2")
        log = (self.folder / f"{out.name}.log").open("a")
        flags = (f"--volumes={self.count}", *words)
        return subprocess.Popen(self.command(*own, *flags), cwd=self.checkout, stderr=log)

    def killed(self, out, listener):
        """Watches and kills; returns the number of kills."""
        udp, journal, done = f"--udp={listener.address}", out / "journal.jsonl", 0
        while True:
            size = journal.stat().st_size if journal.exists() else 0
            process = self.watch(out, udp)
            began = time.monotonic()
            while process.poll() is None and time.monotonic() - began < PATIENCE:
                if journal.exists() and journal.stat().st_size > size:
                    break
                time.sleep(0.01)
            if done < self.kills and process.poll() is None:
                time.sleep(self.chance.uniform(LEAST, MOST))
                process.send_signal(signal.SIGKILL)
                process.wait()
                done += 1
                continue
            assert process.wait(PATIENCE + EVERY * self.count) == 0, self.log(out)
            return done

    def finish(self, out):
        process = self.watch(out)
        assert process.wait(PATIENCE + self.count) == 0, self.log(out)

    def log(self, out):
        return (self.folder / f"{out.name}.log").read_text()

    def compare(self, listener):
        from emojax.online.watching import journal, record

        found = {}
        for name in ("killed", "whole"):
            lines = journal.verify(self.folder / name / "journal.jsonl").lines
            found[name] = [own for own in lines if own["kind"] == "volume"]
            assert len(found[name]) == self.count, (name, len(found[name]), self.count)
        for one, other in zip(found["killed"], found["whole"], strict=True):
            assert not (differ := record.same(one, other)), (one["volume"], differ)
        statuses = {own["status"] for own in found["whole"]}
        assert statuses <= {"ok", "marked"}, statuses
        listener.stop()
        got = listener.got
        assert sorted(got) == list(range(self.count)), "a record was never sent"
        assert all(len(lines) == 1 for lines in got.values()), "one number, two contents"


class Listener(threading.Thread):
    """Collects the datagrams: number -> hashes of the lines that it came with."""

    def __init__(self):
        super().__init__(daemon=True)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.settimeout(0.5)
        self.address = f"127.0.0.1:{self.socket.getsockname()[1]}"
        self.got, self.ended = {}, threading.Event()
        self.start()

    def run(self):
        while True:
            try:
                own = json.loads(self.socket.recv(65536))
            except TimeoutError:
                if self.ended.is_set():
                    return
                continue
            self.got.setdefault(own["seq"], set()).add(own["line"])

    def stop(self):
        self.ended.set()
        self.join()


if __name__ == "__main__":
    main()
