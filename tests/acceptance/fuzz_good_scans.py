"""Scans of every type and format that must be read."""

import gzip

import nibabel as nib
import numpy as np
from fuzz_cases import change, header
from fuzz_files import BOLD
from fuzz_inputs import STEM, brain, nifti, scan

KINDS = ("i1", "u1", ">i2", "u2", "i4", "u4", "i8", "f4", ">f4", "f8", ">f8")


def steps():
    """Returns (name, step) of the first run's scan."""

    def stored(kind, ending="nii.gz", slope=None):
        """Writes a run in another type or format."""

        def prepare(folder):
            (folder / BOLD).unlink()
            x = scan(np.random.default_rng(0))
            made = nifti(x if slope is None else x.astype(float), kind=kind)
            if slope is not None:
                made.header.set_slope_inter(*slope)
            nib.save(made, folder / f"{STEM}_bold.{ending}")

        return prepare

    def typed(kind):
        def prepare(folder):
            x = np.minimum(scan(np.random.default_rng(0)) // (10 if kind[-1] == "1" else 1), 120)
            head = nifti(x).header
            head = head.as_byteswapped(">") if kind[0] == ">" else head
            made = nib.Nifti1Image(x.astype(kind), None, head, dtype=np.dtype(kind))
            nib.save(made, folder / BOLD)

        return prepare

    def outside(folder):
        x = np.where(brain()[..., None], scan(np.random.default_rng(0)), np.nan)
        nib.save(nifti(x.astype(np.float32)), folder / BOLD)

    def milliseconds(folder):
        made = nifti(scan(np.random.default_rng(0)), tr=2000.0)
        made.header.set_xyzt_units("mm", "msec")
        nib.save(made, folder / BOLD)

    def members(data):
        raw = gzip.decompress(data)
        return gzip.compress(raw[:9999]) + gzip.compress(raw[9999:])

    return (
        *((f"type {kind}", typed(kind)) for kind in KINDS),
        (".nii", stored(nib.Nifti1Image, "nii")),
        ("NIfTI-2", stored(nib.Nifti2Image)),
        ("NIfTI-2, .nii", stored(nib.Nifti2Image, "nii")),
        ("scaled values", stored(nib.Nifti1Image, slope=(0.5, 3.0))),
        ("slope 0", header(BOLD, scl_slope=0)),
        ("slope in the header", header(BOLD, scl_slope=2.5, scl_inter=-7)),
        ("tr in ms", milliseconds),
        ("an extension", _extended),
        ("nan outside the brain", outside),
        ("two members of gzip", change(BOLD, members)),
        ("zeros behind gzip", change(BOLD, lambda d: d + bytes(512))),
        ("best compression", change(BOLD, lambda d: gzip.compress(gzip.decompress(d), 9))),
    )


def _extended(folder):
    made = nifti(scan(np.random.default_rng(0)))
    made.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"scanned on Monday"))
    nib.save(made, folder / BOLD)
