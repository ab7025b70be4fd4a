"""Decoders that lack a person's own parts, and vectors as volumes with one long axis."""

import numpy as np
import pytest

from emojax import decoder, online
from emojax.decoder import numpy_reader, personal
from emojax.errors import InputError

SIZE, TIMES = 12, 30


def make(**stated):
    """Returns a logistic decoder of vectors; `stated` are its facts."""
    rng = np.random.default_rng(0)
    facts = decoder.Facts(("a", "b"), (SIZE, 1, 1), 100.0, 10.0)._replace(**stated)
    one = decoder.Member(
        np.arange(0, SIZE, 2),
        np.full(SIZE // 2, 100.0),
        np.ones(SIZE // 2),
        rng.normal(size=(SIZE // 2, 2)) / 9,
        np.zeros(2),
    )
    made = decoder.from_linear(facts, [one], mask=np.ones((SIZE, 1, 1), bool))
    return made, rng.normal(100, 10, (TIMES, SIZE)).astype(np.float32)


@pytest.mark.parametrize(
    ("stated", "way"),
    [
        ({"alignment": (("alpha", 1.0),)}, "time or --by=class"),
        ({"provenance": (("centring", 0, 0),)}, "none"),
    ],
)
def test_a_decoder_of_everybody_waits_for_a_person(stated, way, tmp_path):
    made, x = make(trained_on=("01", "02"), **stated)
    for call in (decoder.decode, lambda made, _: online.init(made)):
        with pytest.raises(InputError, match=rf"not calibrated yet; .*--by={way}\)") as error:
            call(made, x[0])
        assert "\n" not in str(error.value)
    decoder.save(made, tmp_path / "decoder")
    with pytest.raises(ValueError, match="found no person's own; expected a calibrated decoder"):
        numpy_reader.read(tmp_path / "decoder")
    personal.check_calibrated(make(trained_on=("01", "02"), subject="03", **stated)[0])
    personal.check_calibrated(make(trained_on=("01", "02"))[0])  # nothing is a person's own
    personal.check_calibrated(make(**stated)[0])  # made by hand, or before there were such facts


def test_numpy_alone_corrects_nothing(tmp_path):
    decoder.save(make(online="gain")[0], tmp_path / "decoder")
    with pytest.raises(ValueError, match=r"found data\.online=gain; expected emojax"):
        numpy_reader.read(tmp_path / "decoder")


def test_vectors_are_volumes_with_one_long_axis():
    made, x = make()
    p = np.stack([decoder.decode(made, volume) for volume in x[..., None, None]])
    np.testing.assert_array_equal(np.stack([decoder.decode(made, vector) for vector in x]), p)
    records = online.replay(made, x)
    np.testing.assert_array_equal(np.stack([own.probabilities for own in records]), p)
    assert decoder.verify(made, x[1], before=x[1]).reasons == ("the same as the volume before",)
    with pytest.raises(InputError, match=r"found shape \(11,\); expected \(12, 1, 1\)"):
        decoder.decode(made, x[0, 1:])


def test_a_calibration_by_vectors_renews_their_mean():
    made, x = make(trained_on=("01", "02"), provenance=(("centring", 0, 0),))
    now = decoder.calibrate(made, x, "new", by="none")
    assert now.facts.provenance == (("centring", TIMES, 0),)
    far = decoder.calibrate(made, x + 30, "new", by="none")
    p = [decoder.decode(now, x[0]), decoder.decode(far, x[0] + 30)]
    np.testing.assert_allclose(p[0], p[1], atol=1e-6)
