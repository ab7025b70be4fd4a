"""Evidence over volumes: windows, sums, tests that abstain; nothing of it looks at labels."""

import json
import math
import pathlib

import numpy as np
import pytest

from emojax.errors import InputError
from emojax.online import evidence

CLASSES = ("rest", "fear", "calm")
TR = 2.0
EVENT = [evidence.Event(-5.0, 1000.0)]  # one window for a whole run
STORED = pathlib.Path(__file__).parents[1] / "benchmarks" / "results" / "evidence_cpu.json"


def draws(n, seed=0):
    """Returns probabilities of n volumes."""
    p = np.random.default_rng(seed).dirichlet([1.0, 1.0, 1.0], n)
    return [dict(zip(CLASSES, row.tolist(), strict=True)) for row in p]


def run(text, rows, events=(), marked=(), **options):
    """Returns the evidence of each volume of a run."""
    state, out = evidence.init(CLASSES, text, tr=TR, events=events, **options), []
    for i, p in enumerate(rows):
        state, found = evidence.step(state, p, i + 1, i * TR, marked=i in marked)
        out.append(found)
    return out


def softmax(x):
    e = np.exp(x - np.max(x))
    return e / e.sum()


def centred(p, base=(1 / 3, 1 / 3, 1 / 3), limit=3.0):
    x = np.log([p[name] for name in CLASSES]) - np.log(base)
    return np.clip(x - x.mean(), -limit, limit)


def test_a_block_is_the_discounted_sum_of_its_volumes():
    rows, base = draws(6), (0.5, 0.3, 0.2)
    text = "block,rho=.4,limit=1.5,base=.5/.3/.2"
    found = run(text, rows, [evidence.Event(-5.0, 12.0)])[-1]
    total = sum(centred(p, base, 1.5) for p in rows)
    want = softmax(np.log(base) + total / (1 + 5 * 0.4))
    np.testing.assert_allclose([found["p"][name] for name in CLASSES], want, rtol=1e-12)
    logits = [found["log_odds"][name] for name in CLASSES]
    np.testing.assert_allclose(logits, np.log(want / (1 - want)), rtol=1e-9)
    assert found["volumes"] == 6 and found["decision"] == CLASSES[int(want.argmax())]


def test_the_first_volume_gives_back_its_own_probabilities():
    p = {"rest": 0.6, "fear": 0.3, "calm": 0.1}
    for text in ("block", "block,base=.5/.3/.2", "ema:2", "block,rho=0"):
        found = run(text, [p])[0]
        np.testing.assert_allclose([found["p"][name] for name in CLASSES], list(p.values()))


def test_windows_follow_events_by_the_delay_and_gaps_are_windows():
    events = [evidence.Event(10.0, 10.0), evidence.Event(30.0, 10.0)]
    found = run("block", draws(25), events)
    # delay 5 s: [15, 25] s and [35, 45] s; the middle of volume i is 2 i + 1 s
    want = [0] * 7 + [1] * 6 + [2] * 4 + [3] * 6 + [4] * 2
    assert [own["window"] for own in found] == want
    assert [own["volumes"] for own in found[:9]] == [1, 2, 3, 4, 5, 6, 7, 1, 2]
    later = run("block", draws(25), events, delay_s=7.0)
    assert [own["window"] for own in later][8] == 1 and later[7]["window"] == 0


def test_hrf_windows_hold_only_what_follows_an_onset():
    found = run("hrf:4-12", draws(20), [evidence.Event(4.0, 0.5), evidence.Event(20.0, 0.5)])
    there = [i for i, own in enumerate(found) if own]
    assert there == [4, 5, 6, 7, 12, 13, 14, 15]  # 9..15 s and 25..31 s
    assert [found[i]["window"] for i in there] == [0] * 4 + [1] * 4


def test_an_event_without_a_length_lasts_until_the_next():
    found = run("block,delay=0", draws(12), [evidence.Event(4.0), evidence.Event(12.0)])
    assert [own["window"] for own in found] == [0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2]


def test_without_events_the_window_slides():
    rows = draws(12)
    found = run("block,last=4", rows)
    alone = run("block,last=4", rows[8:])
    assert found[-1] == alone[-1] and found[-1]["volumes"] == 4 and found[-1]["window"] is None


def test_ema_is_the_weighted_mean_of_log_odds():
    rows = draws(5)
    found = run("ema:2", rows)[-1]
    weights = 0.5 ** (np.arange(5)[::-1] / 2)
    want = softmax(weights @ [centred(p) for p in rows] / weights.sum())
    np.testing.assert_allclose([found["p"][name] for name in CLASSES], want, rtol=1e-9)


@pytest.mark.parametrize("text", ["block", "ema:2", "sprt:.1", "hrf:0-40"])
def test_missing_and_marked_volumes_add_nothing(text):
    rows, events = draws(6), [evidence.Event(-5.0, 40.0)]
    whole = run(text, [rows[0], None, rows[1], rows[2], None], events)
    marked = run(text, [rows[0], rows[5], rows[1], rows[2], rows[4]], events, marked=(1, 4))
    assert whole == marked
    assert whole[1] == whole[0] and whole[4] == whole[3]
    assert run(f"{text},marked=yes", rows, events, marked=(1,)) == run(text, rows, events)


def test_before_any_volume_there_is_no_evidence():
    assert run("block", [None, None]) == [None, None]


def test_a_volume_of_p_0_is_clipped():
    sure = {"rest": 1.0, "fear": 0.0, "calm": 0.0}
    found = run("block,limit=2", [sure])[0]
    assert found["log_odds"]["rest"] == pytest.approx(4 - math.log(2))
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_labels_are_never_looked_at(tmp_path):
    rows, found = draws(30), []
    for labels in (("fear", "calm", "fear"), ("calm", "fear", "fear"), ("n/a", "", "x")):
        lines = [f"{20 * i}\t10\t{label}" for i, label in enumerate(labels)]
        path = tmp_path / "events.tsv"
        path.write_text("\n".join(["onset\tduration\ttrial_type", *lines]) + "\n")
        found.append([run(text, rows, evidence.read_events(path)) for text in ("block", "sprt:.1")])
    assert found[0] == found[1] == found[2]
    assert len({own["window"] for own in found[0][0]}) > 4


def test_a_journal_gives_the_same_with_triggers():
    rows, state, lines, live = draws(20), evidence.init(CLASSES, "sprt:.2", tr=TR), [], []
    for i, p in enumerate(rows):
        if i in (3, 11):
            lines.append({"kind": "event", "onset": 2.0 * i, "duration": None, "label": "fear"})
            state = evidence.add_event(state, 2.0 * i)
        status = "marked" if i == 7 else "ok"
        lines.append({"kind": "volume", "volume": i + 1, "status": status, "p": p})
        state, found = evidence.step(state, p, i + 1, 2.0 * i, marked=i == 7)
        live.append(found)
    lines = json.loads(json.dumps([{"kind": "start"}, *lines, {"kind": "sent"}]))
    again, replayed = evidence.init(CLASSES, "sprt:.2", tr=TR), []
    for line in lines:
        again, found = evidence.read(again, line, TR)
        replayed += [found] if line["kind"] == "volume" else []
    assert replayed == live and again == state
    assert [own["window"] for own in live if own] == [None] * 3 + [0] * 2 + [1] * 8 + [2] * 7


def correlated(rho, blocks=1500, n=12, seed=0):
    """Returns labels, and p of volumes whose log-odds correlate by rho, each correct alone."""
    rng = np.random.default_rng(seed)
    means = 1.2 * np.eye(3)
    labels = rng.integers(3, size=blocks)
    shared = np.sqrt(rho) * rng.normal(size=(blocks, 1, 3))
    x = means[labels][:, None] + shared + np.sqrt(1 - rho) * rng.normal(size=(blocks, n, 3))
    logits = -((x[:, :, None] - means) ** 2).sum(-1) / 2
    p = np.exp(logits - logits.max(-1, keepdims=True))
    return labels, p / p.sum(-1, keepdims=True)


@pytest.mark.parametrize("assumed, holds", [(0.4, True), (0.0, False)])
def test_the_test_keeps_its_error_where_rho_is_right(assumed, holds):
    labels, p = correlated(rho=0.4)
    wrong, decided = 0, 0
    for label, rows in zip(labels, p, strict=True):
        text = f"sprt:.1,rho={assumed},limit=50,least=1"
        found = run(text, [dict(zip(CLASSES, row, strict=True)) for row in rows], EVENT)[-1]
        decided += found["decision"] != ""
        wrong += found["decision"] not in ("", CLASSES[label])
    assert decided > 300
    assert (wrong / decided <= 0.1) is holds


def test_two_classes_are_walds_test():
    up, classes = math.log(0.95 / 0.05), ("a", "b")
    rng = np.random.default_rng(1)
    p = 1 / (1 + np.exp(-rng.normal(0.3, 1.0, 40)))
    state = evidence.init(classes, "sprt:.05,rho=0,limit=50,least=1", tr=TR, events=EVENT)
    said, ratio = [], np.cumsum(np.log(p / (1 - p)))
    for i, own in enumerate(p.tolist()):
        state, found = evidence.step(state, {"a": own, "b": 1 - own}, i + 1, i * TR)
        said.append(found["decision"])
    first = int(np.flatnonzero(np.abs(ratio) >= up)[0])
    assert said == [""] * first + ["a" if ratio[first] > 0 else "b"] * (40 - first)


def test_a_decision_stands_until_the_window_ends_and_not_before_least():
    sure = {"rest": 0.98, "fear": 0.01, "calm": 0.01}
    other = {"rest": 0.01, "fear": 0.98, "calm": 0.01}
    events = [evidence.Event(-5.0, 20.0), evidence.Event(15.0, 10.0)]
    found = run("sprt:.1,least=3,rho=.2", [sure] * 4 + [other] * 12, events)
    said = [own["decision"] for own in found]
    assert said[:10] == ["", ""] + ["rest"] * 8 and said[10:15] == ["", ""] + ["fear"] * 3


def test_errors_may_differ_between_classes():
    p = {"rest": 0.93, "fear": 0.04, "calm": 0.03}
    assert run("sprt:.1/.01/.01,least=1", [p], EVENT)[0]["decision"] == "rest"
    assert run("sprt:.01/.1/.1,least=1", [p], EVENT)[0]["decision"] == ""


@pytest.mark.parametrize(
    "text",
    [
        *("", "blocks", "block:3", "hrf:4", "hrf:12-4", "ema:0", "ema:x", "sprt:.6", "sprt:0"),
        *(
            "block,rho=2",
            "block,base=.5/.5",
            "block,base=.5/.4/.4",
            "block,colour=red",
            "block,rho",
        ),
        *("block,marked=maybe", "ema:3,error=.1", "ema:3,rho=.2", "sprt:.1/.1", "block,last=0"),
        *("block,limit=0", "block,limit=nan", "block,kind=ema", "hrf:nan-3", "block,delay=inf"),
    ],
)
def test_settings_that_mean_nothing_are_refused(text):
    with pytest.raises(InputError, match="evidence"):
        evidence.init(CLASSES, text)


def test_the_demo_reaches_what_its_docs_say():
    found = json.loads(STORED.read_text())["demo030"]["results"]
    assert found["single"][0] < 0.6 and found["block"][0] < 0.6
    assert found["block"][9] >= 0.8
    tests = found["tests"]["rho=.5"]
    assert tests["0.2"]["wrong"] <= 0.2 and tests["0.1"]["wrong"] <= 0.12  # as `evidence` says
    assert 0.08 < tests["0.05"]["wrong"] < 0.12
