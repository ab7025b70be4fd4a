"""Decoders: from the scanner's volume to probabilities, checked, in a bundle that stands alone."""

from emojax.decoder.build import (
    FACTOR,
    FILES,
    FORMAT,
    Decoder,
    Facts,
    calibrate,
    decode,
    decode_file,
    from_cnn1d,
    from_resnet3d,
    load,
    read_image,
    save,
    verify,
)

__all__ = [
    "FACTOR",
    "FILES",
    "FORMAT",
    "Decoder",
    "Facts",
    "calibrate",
    "decode",
    "decode_file",
    "from_cnn1d",
    "from_resnet3d",
    "load",
    "read_image",
    "save",
    "verify",
]
