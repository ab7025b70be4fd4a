"""Person-specific parts of a decoder: its alignment, or the mean of each voxel."""

from emojax.decoder.build import Decoder, Facts
from emojax.errors import InputError

ALIGNMENT, CENTRING = "alignment", "centring"
STEPS = (ALIGNMENT, CENTRING)  # provenance steps that are fitted to the person's own runs


def centres(facts: Facts) -> bool:
    """Returns whether the decoder subtracts the mean of its person's runs."""
    return any(step == CENTRING for step, *_ in facts.provenance)


def check_calibrated(decoder: Decoder) -> None:
    """Refuses a decoder for new people that has not been calibrated to one yet.

    Raises:
      InputError: the decoder was trained on all subjects, and its person-specific part is missing.
    """
    facts = decoder.facts
    if facts.subject or not facts.trained_on or not (facts.alignment or centres(facts)):
        return
    way = "time or --by=class" if facts.alignment else "none"
    command = f"emojax calibrate BUNDLE RUN.nii.gz --subject=NAME --workdir=DIR --by={way}"
    raise InputError("decoder", "one that is not calibrated yet", f"a person's own ({command})")
