"""Volumes on disk, read slice by slice: NIfTI, NRRD and series of DICOM files."""

from ambiseg.data.volumes.slices import SliceSettings, read_slice, slice_count
from ambiseg.data.volumes.volume import Volume, is_volume, open_volume

__all__ = ["SliceSettings", "Volume", "is_volume", "open_volume", "read_slice", "slice_count"]
