"""Label maps and other values at the voxels of a volume, in a file that lies where the volume does.

A NIfTI volume gives NIfTI with its header: sform, qform, their codes, units, description and extensions stay as they
are, so that its affine is equal bit by bit. An NRRD volume gives NRRD with its fields of space. A DICOM series gives
NIfTI, with its affine turned to the axes right, anterior, superior.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ambiseg.data.files.nifti import read_header
from ambiseg.data.files.reading import NIFTI_SUFFIXES, NRRD_SUFFIXES, suffix_of
from ambiseg.data.volumes.volume import Volume

_SPACE_FIELDS = ("space", "space origin", "space units", "measurement frame")
_SCANNER = 1
"""NIfTI's code of an affine to the coordinates of the scanner."""


def suffix_for(source: Volume) -> str:
    """The suffix of files that `write_values` makes for a volume."""
    return ".nrrd" if _is_nrrd(source) else ".nii.gz"


def write_values(partial: Path, values: NDArray[Any], source: Volume) -> None:
    """Write values ``(X, Y, Z)`` or ``(X, Y, Z, C)`` at the voxels of a volume, compressed.

    Args:
        partial: in a folder that is being prepared (`ambiseg.atomic_write`); ends with `suffix_for` the volume.
        values: uint8 or float32.
        source: the volume.
    """
    if _is_nrrd(source):
        _write_nrrd(partial, values, source)
    elif suffix_of(source.path) in NIFTI_SUFFIXES:
        _write_nifti(partial, values, source)
    else:
        import nibabel

        image = nibabel.Nifti1Image(values, source.affine)
        image.set_sform(source.affine, _SCANNER)
        # A qform has no shear, as of a CT with a tilted gantry: such a volume has only the sform.
        image.set_qform(source.affine, _SCANNER)
        if not np.allclose(image.get_qform(), source.affine, atol=1e-3):
            image.set_qform(None, 0)
        image.header.set_xyzt_units("mm")
        nibabel.save(image, partial)


def _is_nrrd(source: Volume) -> bool:
    return source.path.is_file() and suffix_of(source.path) in NRRD_SUFFIXES


def _write_nifti(partial: Path, values: NDArray[Any], source: Volume) -> None:
    import nibabel

    kind = read_header(source.path).image_class
    header = kind.from_filename(source.path).header.copy()
    header.set_data_dtype(values.dtype)
    header.set_slope_inter(1, 0)
    header["cal_min"], header["cal_max"] = 0, 0
    # An image without an affine leaves that of the header as it is.
    nibabel.save(kind(values, None, header), partial)


def _write_nrrd(partial: Path, values: NDArray[Any], source: Volume) -> None:
    import nrrd

    theirs = nrrd.read_header(str(source.path))
    header: dict[str, Any] = {name: theirs[name] for name in _SPACE_FIELDS if name in theirs}
    space = _space_axes(theirs, source)
    more = values.ndim - len(space)
    directions = theirs.get("space directions")
    if directions is not None and len(space) == 3:
        rows = [np.asarray(directions[axis], np.float64) for axis in space]
        header["space directions"] = np.array([*rows, *[np.full(3, np.nan)] * more])
    else:
        header["spacings"] = [*source.spacing, *[np.nan] * more]
    if "space units" in header and len(header["space units"]) != 3:
        del header["space units"]
    header["kinds"] = ["domain"] * 3 + ["list"] * more
    header["encoding"] = "gzip"
    nrrd.write(str(partial), values, header, index_order="F")


def _space_axes(header: Any, source: Volume) -> list[int]:
    """The axes of space of an NRRD file, in the order of the volume."""
    directions = header.get("space directions")
    if directions is not None:
        return [i for i, row in enumerate(directions) if row is not None and np.isfinite(row).all()]
    return list(getattr(source.planes, "space", (0, 1, 2)))
