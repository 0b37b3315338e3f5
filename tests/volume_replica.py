"""Small volumes on disk, in every format, with two annotators who disagree about one bright ball."""

from __future__ import annotations

from pathlib import Path

import nibabel
import nrrd
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

AFFINE = np.array([[-0.7, 0, 0, 30.1], [0, 0.8, 0, -20.3], [0, 0, 2.5, -100.7], [0, 0, 0, 1]])
"""Left, anterior, superior."""
SHAPE = (12, 10, 6)
TO_LPS = np.diag([-1.0, -1, 1, 1])
RATERS = ("anna", "ben")


def case(number, shape=SHAPE):
    """An image ``(X, Y, Z)`` int16 and the masks of `RATERS`."""
    rng = np.random.default_rng(number)
    places = np.meshgrid(*map(np.arange, shape), indexing="ij")
    centre = [rng.uniform(0.4, 0.6) * side for side in shape]
    away = np.sqrt(sum(((x - c) / (side / 3)) ** 2 for x, c, side in zip(places, centre, shape, strict=True)))
    image = (200 * np.exp(-(away**2)) + rng.normal(0, 9, shape)).astype(np.int16)
    return image, {
        name: (away < size).astype(np.uint8) for name, size in zip(RATERS, (0.6, 0.8), strict=True)
    }


def write_nifti(path, values, affine=AFFINE, scaling=None, coded=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = nibabel.Nifti1Image(values, affine if coded else None)
    if scaling is not None:
        image.header.set_slope_inter(*scaling)
    nibabel.save(image, path)
    return path


def write_nrrd(path, values, affine=AFFINE, encoding="gzip"):
    """The axes of space are the last three."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lps = TO_LPS @ affine
    directions = [[np.nan] * 3] * (values.ndim - 3) + lps[:3, :3].T.tolist()
    header = {"space": "left-posterior-superior", "space origin": lps[:3, 3], "encoding": encoding}
    nrrd.write(str(path), values, {**header, "space directions": np.array(directions)})
    return path


def write_series(folder, values, affine=AFFINE, names=None, series=None, **fields):
    """The planes across the last axis as DICOM files; ``fields`` are set in all of them."""
    folder.mkdir(parents=True, exist_ok=True)
    lps, uid = TO_LPS @ affine, series or generate_uid()
    down, across, _ = np.linalg.norm(lps[:3, :3], axis=0).tolist()
    for k, plane in enumerate(np.moveaxis(values, 2, 0)):
        content = Dataset()
        content.file_meta = FileMetaDataset()
        content.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        content.file_meta.MediaStorageSOPClassUID = content.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
        content.file_meta.MediaStorageSOPInstanceUID = content.SOPInstanceUID = generate_uid()
        content.SeriesInstanceUID, content.PixelSpacing = uid, [down, across]
        rows, columns = lps[:3, 0] / down, lps[:3, 1] / across
        content.ImageOrientationPatient = [*columns.tolist(), *rows.tolist()]
        content.ImagePositionPatient = [round(value, 9) for value in (lps @ [0, 0, k, 1])[:3].tolist()]
        content.Rows, content.Columns = plane.shape
        content.BitsAllocated = content.BitsStored = 16
        content.HighBit, content.PixelRepresentation, content.SamplesPerPixel = 15, 1, 1
        content.PhotometricInterpretation = "MONOCHROME2"
        content.RescaleSlope, content.RescaleIntercept = 1, -10
        content.PixelData = np.ascontiguousarray(plane, np.int16).tobytes()
        for name, value in fields.items():
            setattr(content, name, value)
        name = f"{(k * 37) % 101:03}.dcm" if names is None else names[k]
        content.save_as(folder / name, enforce_file_format=True)
    return folder


def write_dataset(root, slices="{axis: axial}", splits=("train", "train", "val", "test"), shape=SHAPE):
    """Volumes in the folders of this library, one for each word of ``splits``."""
    root = Path(root)
    for number, split in enumerate(splits):
        image, masks = case(number, shape)
        write_nifti(root / split / "images" / f"case{number}.nii.gz", image)
        for name, mask in masks.items():
            write_nifti(root / split / "masks" / f"case{number}" / f"{name}.nii.gz", mask)
    (root / "dataset.yaml").write_text(f"slices: {slices}\n")
    return root
