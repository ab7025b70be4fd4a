"""DICOM files of every kind that `dicom.read` accepts, and the volumes that it makes of them."""

import dicom_files as files

from emojax.online import dicom
from emojax.online.dicom import slices

SHAPE = (16, 12, 10)
PLANES = ("axial", "coronal", "sagittal")
GE, PHILIPS = files.About(vendor=files.GE), files.About(vendor=files.PHILIPS)


def each(write, *args, **kwargs):
    """Turns a writer of one volume into a writer of several; it returns one file or several."""

    def several(volumes, affine):
        out = []
        for number, volume in enumerate(volumes, 1):
            made = write(volume, affine, number, *args, **kwargs)
            out += made if isinstance(made, list) else [made]
        return out

    return several


def one_frame_files(volumes, affine):
    """Returns multi-frame files with one frame each."""
    about, out = files.About(), []
    for t, volume in enumerate(volumes):
        for k in range(volume.shape[2]):
            place = affine.copy()
            place[:3, 3] += affine[:3, 2] * k
            data = files.enhanced(volume[None, :, :, k : k + 1], place, t + 1, about)
            data.InstanceNumber, data.AcquisitionNumber = t * volume.shape[2] + k + 1, t + 1
            data.SOPInstanceUID += f".{k}"
            out.append(data)
    return out


WRITERS = {
    "mosaic": each(files.mosaic),
    "mosaic without its CSA header": each(files.mosaic, csa=False),
    "XA, one file per volume": each(lambda v, *rest: files.enhanced(v[None], *rest)),
    "XA, one file per slice": each(files.slices),
    "GE slices": each(files.slices, GE),
    "Philips slices": each(files.slices, PHILIPS),
    "Philips, several volumes": lambda v, a: [files.enhanced(v, a, 1, PHILIPS)],
    "GE, several volumes": lambda v, a: [files.enhanced(v, a, 1, GE)],
    "one frame per file": one_frame_files,
}


def read(datasets, folder, given=0, order=None):
    """Returns the volumes of files by number, and the state after the last."""
    state, found, folder = slices.init(given), {}, folder / "in"
    folder.mkdir(exist_ok=True)
    for i in range(len(datasets)) if order is None else order:
        files.save(datasets[i], folder / f"{i:04}.dcm")
        for part in dicom.read(folder / f"{i:04}.dcm"):
            state, volumes = slices.add(state, part)
            found.update({(v.series.kind, v.number): v for v in volumes})
    return found, state


def part_of(data, folder, name="one.dcm"):
    files.save(data, folder / name)
    (part,) = dicom.read(folder / name)
    return part
