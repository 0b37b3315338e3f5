"""Volumes on disk, read slice by slice: NIfTI, NRRD and series of DICOM files."""
