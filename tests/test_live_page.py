"""The live page in a browser: the last volume, marks, and a server that comes back."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import time

import pytest
from chromium import PROGRAM, Chromium
from records import Session

from emojax.online.outputs import Settings, open_outputs

if PROGRAM is None:
    pytest.skip("no chromium is installed", allow_module_level=True)

HERE = pathlib.Path(__file__).parent
TEXT = "document.getElementById('{}').textContent"
READY = "document.readyState === 'complete' && !!document.getElementById('which')"
RED = "rgb(196, 0, 26)"


class Server:
    """The server in its own process."""

    def __init__(self, path, port=0):
        words = [sys.executable, str(HERE / "live_server.py"), str(port), str(path)]
        paths = {"PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)])}
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen(words, env=os.environ | paths, text=True, **pipes)
        self.port = int(self.process.stdout.readline())

    def send(self, **more):
        self.process.stdin.write(json.dumps(more) + "\n")
        self.process.stdin.flush()

    def kill(self):
        self.process.kill()
        self.process.wait()

    def finish(self):
        self.process.stdin.close()
        self.process.wait()


@pytest.fixture
def browser(tmp_path):
    with Chromium(tmp_path / "profile") as own:
        yield own


@pytest.fixture
def server(tmp_path):
    own = Server(tmp_path / "records.jsonl")
    yield own
    own.kill()


def shows(browser, name, text):
    browser.until(f"{READY} && {TEXT.format(name)}.includes({json.dumps(text)})")


PIXELS = """(() => {
  const canvas = document.querySelector("canvas"), pen = canvas.getContext("2d");
  const pixels = pen.getImageData(0, 0, canvas.width, canvas.height).data;
  let drawn = 0, red = 0;
  for (let i = 0; i < pixels.length; i += 4) {
    drawn += pixels[i + 1] < 240;
    red += pixels[i] - pixels[i + 1] > 100;
  }
  return [drawn, red];
})()"""


def test_the_page_follows_a_run(browser, server, tmp_path):
    browser.open(f"http://127.0.0.1:{server.port}/")
    shows(browser, "decision", "waiting")
    shows(browser, "link", "live")
    shows(browser, "facts", "decoder ab12cd34  ·  TR 2 s")
    server.send(count=20)
    shows(browser, "which", "Volume 20")
    shows(browser, "decision", "fear")
    assert browser.value(TEXT.format("p")) == "75%"
    assert browser.value(TEXT.format("bars")) == "calm25%fear75%"
    assert "0.10 mm" in browser.value(TEXT.format("numbers"))
    shows(browser, "evidence", "Evidence from 2 volumes: fear 75%")
    assert browser.value("document.getElementById('top').className") == ""
    browser.until(f"{PIXELS}[0] > 1000")  # the charts are drawn once a second
    assert browser.value(PIXELS)[1] == 0

    server.send(status="marked", reasons=["<img src=x onerror=alert(1)> 0.4, less than 0.9"])
    shows(browser, "mark", "Volume 21 marked: <img src=x onerror=alert(1)> 0.4, less than 0.9")
    style = "getComputedStyle(document.getElementById('top'))"
    assert browser.value(f"{style}.backgroundColor") == RED
    assert browser.value("document.images.length") == 0
    browser.until(f"{PIXELS}[1] > 100")  # the red line

    server.send(status="missing", reasons=["no file within 1 s"], missed=1, count=2)
    shows(browser, "decision", "missing")
    shows(browser, "which", "Volume 23")
    server.send()
    shows(browser, "which", "Volume 24")
    assert browser.value("document.getElementById('top').className") == ""
    browser.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 20_000
    server.finish()
    shows(browser, "link", "run ended")


def test_the_page_goes_on_after_a_restart(browser, tmp_path):
    path = tmp_path / "records.jsonl"
    server = Server(path)
    browser.open(f"http://127.0.0.1:{server.port}/")
    server.send(count=30)
    shows(browser, "which", "Volume 30")
    server.kill()
    shows(browser, "link", "disconnected")
    assert browser.value("document.getElementById('now').className") == "old"
    server = Server(path, server.port)
    server.send(count=5)
    shows(browser, "which", "Volume 35")
    shows(browser, "link", "live")
    assert browser.value("rows.map(row => row.seq).join()") == ",".join(map(str, range(35)))
    server.send(count=300)
    shows(browser, "which", "Volume 335")
    assert browser.value("rows.map(row => row.seq).join()") == ",".join(map(str, range(35, 335)))
    server.kill()
    server = Server(tmp_path / "another.jsonl", server.port)  # another run at the same port
    server.send(count=3)
    shows(browser, "which", "Volume 3")
    browser.until("rows.map(row => row.seq).join() === '0,1,2'")
    server.kill()


def test_the_page_draws_seldom(browser, server):
    browser.open(f"http://127.0.0.1:{server.port}/")
    server.send(count=300)
    shows(browser, "which", "Volume 300")
    browser.value(
        "counts = [0, 0]; for (const [i, name] of ['words', 'plot'].entries()) {"
        "const own = window[name]; window[name] = x => { counts[i]++; own(x); }; }"
    )
    start = time.monotonic()
    for _ in range(40):
        server.send()
        time.sleep(0.05)
    shows(browser, "which", "Volume 340")
    seconds = time.monotonic() - start
    words, plots = browser.value("counts")
    assert 1 <= words <= 4 * seconds + 2
    assert plots <= 6 * (seconds + 2)


def test_the_page_of_an_experiment(browser):
    session = Session()
    page = str(HERE.parent / "examples" / "clients" / "client.html")
    settings = Settings(http=0, page=page, token="s3cret")
    with contextlib.closing(open_outputs(settings, session.history)) as outputs:
        browser.open(outputs.page.replace("/?", "/experiment?"))
        browser.until("document.readyState === 'complete' && events.readyState === 1")
        session.send(outputs, 2)
        session.send(outputs, status="missing")
        browser.until("document.title === 'Feedback after volume 2'")
        assert browser.value("document.getElementById('bar').style.height") == "50%"
