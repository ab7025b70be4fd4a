"""Model cards: they say what the manifest states and nothing else, and cannot be changed unseen."""

import hashlib
import json
import re
import shutil

import numpy as np
import pytest
import tiny_decoder

from emojax import decoder
from emojax.decoder import bundle as bundles
from emojax.decoder import card, schema
from emojax.errors import InputError
from emojax.experiments.exports import facts as exported
from emojax.report import texts

pytestmark = pytest.mark.usefixtures("quick_compile")
FULL = {
    "trained_on": ("02", "03", "04"),
    "left_out": "01",
    "kind": "bag of 3 logistic decoders",
    "tr": 2.0,
    "provenance": (("mask", 400, 0), ("training", 300, 300)),
    "scores": (
        ("balanced_accuracy", 0.7124),
        ("nll", 0.5321),
        ("ece", 0.0683),
        (card.LOW, 0.6342),
        (card.HIGH, 0.7891),
        (card.NOISE, 0.3301),
    ),
    "protocol": "calibrated",
    "runs": ("run-01", "run-02"),
    "preprocessing": ("labels 5 s behind events",),
}
PROGRAM = {"emojax": "0.4.0", "jax": "0.10.2", "runs_on": ["0.8.3", "0.12.0"]}


@pytest.fixture(scope="module")
def made():
    built, later, _ = tiny_decoder.made()
    return built.replace(facts=built.facts._replace(**FULL)), later


@pytest.fixture
def saved(made, tmp_path):
    decoder.save(made[0], tmp_path / "bundle")
    return tmp_path / "bundle"


def text_of(facts, **change):
    return card.render("linear", facts._replace(**change), {"sd": (10.0, 90.0)}, PROGRAM)


# ---------------------------------------------------------------- its statements


def test_it_says_what_the_manifest_states(saved):
    text = (saved / "README.md").read_text()
    stated = json.loads((saved / "manifest.json").read_text())
    assert text.startswith("# Decoder of rest, fear\n")
    for said in (
        "* Classes: rest, fear.",
        "one fMRI volume of 20 x 22 x 14 voxels, as scanned",
        "* Classifier: bag of 3 logistic decoders.",
        "* Fitted to 3 subjects or runs: 02, 03, 04.",
        "* Left out of the fit: 01.",
        "* Aligned to the brain of 01.",
        "* For scans of 01; `emojax calibrate` adapts it to other people.",
        "| balanced accuracy | 0.712 (95 % interval 0.634 to 0.789) |",
        "| chance | 0.500 |",
        "| the same procedure on noise | 0.330 |",
        "| negative log-likelihood (nats) | 0.532 |",
        f"Protocol calibrated: {texts.PROTOCOLS['calibrated']}",
        "| training | 300 | 300 |",
        f"* jax {stated['program']['jax']}.",
        f"* emojax {stated['program']['emojax']}.",
    ):
        assert said in text
    for name, low, high in stated["facts"]["limits"]:
        assert f"* {name} {low:.4g} to {high:.4g}" in text
    low, high = stated["bounds"]["sd"]
    assert f"* sd inside the mask outside of {low:.4g} to {high:.4g}" in text


def test_every_number_is_one_of_the_manifest(made):
    """Two cards differ only where their facts differ."""
    facts = made[0].facts._replace(limits=(), level=0.0)
    numbers = set(re.findall(r"\d+\.\d+", text_of(facts)))
    known = {"0.712", "0.634", "0.789", "0.330", "0.532", "0.068", "0.500"}
    assert numbers <= known | {"0.4", "0.10", "0.8", "0.12", "4.0", "10.2", "8.3", "12.0"}


def test_what_is_not_stated_is_not_said(made):
    bare = decoder.Facts(("a", "b"), (4, 4, 4), 500.0, 60.0)
    text = text_of(bare)
    assert (
        "The manifest states no score." in text and "The training subjects are not stated." in text
    )
    assert "Nothing is marked" in text and "The manifest does not say." in text
    assert "interval" not in text and "Left out" not in text and "Aligned" not in text
    part = text_of(bare, scores=(("balanced_accuracy", 0.6),))
    assert "| balanced accuracy | 0.600 |" in part and "| not measured |" in part


def test_a_decoder_of_everybody_and_a_calibrated_one_have_no_score_of_their_own(made):
    facts = made[0].facts
    refit = text_of(facts, left_out="", subject="", alignment=(("scaling", True),))
    assert "This decoder was trained on all subjects: it has no score of its own." in refit
    assert "* No subject or run was left out." in refit and "* For a new person, after" in refit
    inputs = (("sub-9_bold.nii", "a" * 64),)
    own = text_of(facts, subject="9", parent="b" * 64, inputs=inputs, fit=(("correlation", 0.5),))
    assert (
        f"* Calibrated from decoder `{'b' * 64}`, by\n  * sub-9\\_bold.nii, sha256 `{'a' * 64}`"
        in own
    )
    assert "decoder itself has not been scored." in own and "correlation 0.5." in own


def test_names_are_shown_as_they_are_and_nothing_is_obeyed(made):
    odd = ("<script>x</script>", "a|b", "*c*\n# d", "[e](http://f)", "`g`", "h_i_")
    text = text_of(made[0].facts, classes=odd, subject="<img src=x>", kind="&lt;")
    assert "<script>" not in text and "<img" not in text and "\n# d" not in text
    for shown in (
        "&lt;script&gt;",
        r"a\|b",
        r"\*c\* \# d",
        r"\[e\](http://f)",
        r"\`g\`",
        "&amp;lt;",
    ):
        assert shown in text


def test_many_names_are_counted(made):
    text = text_of(made[0].facts, trained_on=tuple(f"{i:03}" for i in range(100)))
    assert "* Fitted to 100 subjects or runs: 000, 001," in text and "039 and 60 more." in text


def test_scores_come_from_the_report_with_interval_and_floor(made):
    summary = {"balanced_accuracy": {"mean": 0.7, "ci95": [0.6, 0.8]}, "nll": {"mean": 0.5}}
    curve = {"confidence": [0.5], "accuracy": [0.6], "count": [10]}
    found = exported.with_scores(made[0].facts, summary, curve, 0.34, "strict")
    wanted = {"balanced_accuracy": 0.7, "nll": 0.5, card.LOW: 0.6, card.HIGH: 0.8, card.NOISE: 0.34}
    assert dict(found.scores) == wanted and found.protocol == "strict"
    summary["balanced_accuracy"]["ci95"] = None  # one fold has no interval
    found = exported.with_scores(made[0].facts, summary, curve)
    assert dict(found.scores) == {"balanced_accuracy": 0.7, "nll": 0.5}


# ---------------------------------------------------------------- whether it can be trusted


def test_the_id_stands_for_the_card(saved, made):
    known = decoder.load(saved).id
    stated = json.loads((saved / "manifest.json").read_text())
    digest = hashlib.sha256((saved / "README.md").read_bytes()).hexdigest()
    assert stated["sha256"]["README.md"] == digest
    decoder.save(decoder.load(saved), saved)
    assert decoder.load(saved).id == known  # the same facts, the same card, the same id
    changed = made[0].replace(facts=made[0].facts._replace(protocol="strict"))
    decoder.save(changed, saved)
    assert decoder.load(saved).id != known


def test_an_edited_card_is_refused(saved):
    path = saved / "README.md"
    path.write_text(path.read_text().replace("0.712", "0.912"))
    with pytest.raises(
        InputError, match=r"README.md: found content that was changed; expected the"
    ):
        decoder.load(saved)
    edit(saved, renew=False)
    with pytest.raises(InputError, match="content that is not that of decoder"):
        decoder.load(saved)


def test_a_card_may_be_missing(saved, tmp_path):
    known = decoder.load(saved).id
    (saved / "README.md").unlink()
    assert decoder.load(saved).id == known
    (saved / "README.md").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match=r"README.md: found a link; expected a regular file"):
        decoder.load(saved)


def test_bundles_without_cards_load(saved):
    """Bundles of 0.3.0 and later, whose manifest does not mention a card, still load."""
    (saved / "README.md").unlink()
    edit(saved, drop=True)
    assert decoder.load(saved).facts.scores == FULL["scores"]
    (saved / "README.md").write_text("not a card of this decoder")  # no signature vouches for it
    assert "README.md" not in bundles.read_manifest(saved).sha256
    assert decoder.load(saved).id


def edit(folder, renew=True, drop=False):
    """Gives the manifest the hash of the card, or drops the card from it; `renew` its id, too."""
    path = folder / "manifest.json"
    stated = json.loads(path.read_text())
    if drop:
        del stated["sha256"]["README.md"]
        del stated["facts"]["protocol"], stated["program"]["emojax"]
    else:
        digest = hashlib.sha256((folder / "README.md").read_bytes()).hexdigest()
        stated["sha256"]["README.md"] = digest
    if renew:
        stated["id"] = schema.identify(stated)
    path.write_text(json.dumps(stated))


def test_a_signature_stands_for_the_card(saved, tmp_path):
    pytest.importorskip("cryptography")
    from cryptography.hazmat.primitives import serialization as s
    from cryptography.hazmat.primitives.asymmetric import ed25519

    key = ed25519.Ed25519PrivateKey.generate()
    form = (s.Encoding.PEM, s.PrivateFormat.PKCS8, s.NoEncryption())
    (tmp_path / "key").write_bytes(key.private_bytes(*form))
    public = key.public_key().public_bytes(s.Encoding.OpenSSH, s.PublicFormat.OpenSSH)
    (tmp_path / "key.pub").write_bytes(public)
    bundles.sign(saved, tmp_path / "key")
    assert decoder.load(saved, trust=tmp_path / "key.pub").id
    (saved / "README.md").write_text("better")
    edit(saved)  # the hash, and even the id
    with pytest.raises(InputError, match="a signature by another key"):
        decoder.load(saved, trust=tmp_path / "key.pub")


def test_calibration_writes_a_card(made, tmp_path):
    built, later = made
    facts = built.facts._replace(alignment=())
    decoder.save(built.replace(facts=facts), tmp_path / "one")
    loaded = decoder.load(tmp_path / "one")
    fitted = decoder.calibrate(loaded, later, "09", by="none", affine=tiny_decoder.AFFINE)
    decoder.save(fitted, tmp_path / "new")
    text = (tmp_path / "new" / "README.md").read_text()
    assert "* Aligned to the brain of 09." in text and loaded.id in text
    assert decoder.load(tmp_path / "new").facts.subject == "09"
    assert np.isfinite(decoder.decode(decoder.load(tmp_path / "new"), later[0])).all()
    shutil.rmtree(tmp_path / "one")
