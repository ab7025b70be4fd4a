"""Decoders: self-contained bundles that turn a volume from the scanner into probabilities."""

from emojax.decoder.bounds import FACTOR
from emojax.decoder.build import Decoder, Facts, Member, from_cnn1d, from_linear, from_resnet3d
from emojax.decoder.bundle import FILES, FORMAT, load, save
from emojax.decoder.calibration import calibrate
from emojax.decoder.decode import decode, decode_file, decode_inputs, read_image, verify
from emojax.decoder.guards import Marks

__all__ = [
    "FACTOR",
    "FILES",
    "FORMAT",
    "Decoder",
    "Facts",
    "Marks",
    "Member",
    "calibrate",
    "decode",
    "decode_file",
    "decode_inputs",
    "from_cnn1d",
    "from_linear",
    "from_resnet3d",
    "load",
    "read_image",
    "save",
    "verify",
]
