"""A small run, and its simulation by a fast scanner."""

import json

import dicom_files
import nibabel as nib
import numpy as np

from emojax.online.simulate import simulate

SHAPE, COUNT, TR = (8, 8, 6), 6, 2.0
VALUES = dicom_files.volumes(COUNT, SHAPE)
AFFINE = dicom_files.oblique(1, shape=SHAPE)
WHOLE = 352 + 2 * VALUES[0].size  # bytes of a NIfTI file
FAST = 200.0  # times the scanner's speed: a volume each 10 ms


def write_run(path, values=VALUES, affine=AFFINE, tr=TR):
    image = nib.Nifti1Image(np.moveaxis(values, 0, -1), affine)
    image.header.set_xyzt_units("mm", "sec")
    image.header.set_zooms((*image.header.get_zooms()[:3], tr))
    nib.save(image, path)
    return path


def write(run, folder, **settings):
    """Simulates, and returns the lines of the log."""
    log = folder.with_suffix(".log")
    simulate(run, folder, log=log, **{"speed": FAST, **settings})
    return [json.loads(line) for line in log.read_text().splitlines()]


def sizes(folder):
    return {path.name: path.stat().st_size for path in folder.iterdir()}
