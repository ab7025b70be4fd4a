"""Damaged files of every source, and NIfTI headers that cannot be."""

import gzip

import nibabel as nib
import numpy as np
from fuzz_cases import (
    CERTAIN,
    DAMAGE,
    GOOD,
    MAY,
    MUST,
    Case,
    change,
    damage,
    data_argv,
    header,
    image,
    nothing,
    rows,
    swap,
)
from fuzz_inputs import LABEL_MAP, STEM, nifti

BOLD = f"{STEM}_bold.nii.gz"
SOURCES = {  # family -> how it is read, files
    "bids": (data_argv("bids", LABEL_MAP), (BOLD, f"{STEM}_events.tsv", "task-emo_bold.json")),
    "spm": (
        data_argv("spm", "--config.data.labels=volumes.csv"),
        ("s1/run1/raX.nii", "volumes.csv", "s1/run1/rp_aX.txt"),
    ),
    "spm:onsets": (data_argv("spm", LABEL_MAP, "--config.data.labels=onsets.csv"), ("onsets.csv",)),
    "spm:mat": (
        data_argv("spm", LABEL_MAP, "--config.data.labels=cond.mat"),
        ("s1/run1/cond.mat",),
    ),
    "lab": (data_argv("lab"), ("E1_run1_x.mat", "E3_run1_x.mat")),
    "vectors": (data_argv("lab"), ("X_hyp_v2.csv", "Y_hyp_v2.csv")),
    "arrays": (data_argv("arrays"), ("s1.npz",)),
}


def cases(rng):
    """Yields the cases of files as such."""
    for source, (argv, files) in SOURCES.items():
        yield Case(source, "undamaged", nothing, argv, GOOD)
        for file in files:
            unread = MAY if "rp_" in file else MUST  # without data.motion
            for kind in CERTAIN:
                yield Case(source, f"{file} {kind}", damage(file, kind, rng), argv, unread)
            for kind in DAMAGE:
                for _ in range(2 if "mat" in file or ".nii" in file or "npz" in file else 1):
                    yield Case(source, f"{file} {kind}", damage(file, kind, rng), argv, MAY)
            for what in ("folder", "missing", "link", "loop"):
                rule = MAY if file.endswith((".json", ".txt")) else MUST
                if what == "missing" and (source in ("lab", "arrays") or ".nii" in file):
                    rule = MAY  # one run, or subject, fewer
                yield Case(source, f"{file} {what}", swap(file, what), argv, rule)
    yield Case("bids", "bold.nii.gz fifo", swap(BOLD, "fifo"), SOURCES["bids"][0])
    yield from _headers("bids", BOLD)
    yield from _headers("spm", "s1/run1/raX.nii")
    name = "gzip bomb: 300 MB behind the volumes"
    yield Case("bids:nifti", name, change(BOLD, _bomb), SOURCES["bids"][0])


def _bomb(data):
    return gzip.compress(gzip.decompress(data) + bytes(300 << 20), 1)


def _headers(source, file):
    zeros = np.zeros
    huge = {1: 32767, 2: 32767, 3: 32767, 4: 32767}
    number = np.arange(16 * 16 * 12 * 40).reshape(16, 16, 12, 40)
    yield from rows(
        f"{source}:nifti",
        SOURCES[source][0],
        (
            ("dim0 = 9", header(file, dim={0: 9})),
            ("dim0 = -1", header(file, dim={0: -1})),
            ("negative axis", header(file, dim={1: -16})),
            ("axis 0", header(file, dim={4: 0})),
            ("huge axes", header(file, dim=huge)),
            ("more volumes than there are", header(file, dim={4: 41})),
            ("fewer volumes than there are", header(file, dim={4: 20}), MAY),
            ("unknown datatype", header(file, datatype=9999)),
            ("complex", header(file, datatype=32, bitpix=64)),
            ("rgb", header(file, datatype=128, bitpix=24)),
            ("slope nan", header(file, scl_slope=np.nan), MAY),
            ("slope inf", header(file, scl_slope=np.inf), MAY),
            ("slope 1e38", header(file, scl_slope=1e38), MAY),
            ("intercept nan", header(file, scl_slope=1, scl_inter=np.nan)),
            ("offset negative", header(file, vox_offset=-352)),
            ("offset huge", header(file, vox_offset=1e30)),
            ("offset nan", header(file, vox_offset=np.nan)),
            ("tr nan", header(file, pixdim={4: np.nan}), MAY),
            ("tr negative", header(file, pixdim={4: -2}), MAY),
            ("tr 1e30", header(file, pixdim={4: 1e30}), MAY),
            ("affine nan", header(file, sform_code=1, srow_x=[np.nan] * 4)),
            ("affine singular", header(file, sform_code=1, srow_x=[0.0] * 4)),
            ("magic", header(file, magic=b"xxx")),
            ("sizeof_hdr", header(file, sizeof_hdr=349), MAY),
            ("3-D", image(file, lambda: nifti(zeros((16, 16, 12), np.int16)))),
            ("5-D", image(file, lambda: _bare(zeros((8, 8, 6, 4, 3), np.int16)))),
            ("another grid", image(file, lambda: nifti(zeros((8, 8, 6, 40), np.int16))), MAY),
            ("all NaN", image(file, lambda: nifti(zeros((16, 16, 12, 40), "f4") * np.nan))),
            (
                "one inf voxel",
                image(file, lambda: nifti(np.where(number == 7, np.inf, 1.0).astype("f4"))),
            ),
            ("one voxel axis", image(file, lambda: nifti(zeros((1, 1, 1, 40), np.int16))), MAY),
        ),
        MUST,
    )


def _bare(x):
    return nib.Nifti1Image(x, np.eye(4))
