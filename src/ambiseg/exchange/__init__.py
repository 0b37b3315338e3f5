"""Predictions in the formats of other programs: COCO, Label Studio, CVAT, GeoTIFF, NIfTI and napari.

`convert` writes all images of a `PredictedImages` or `AnnotatedImages`; `FORMATS` lists the formats. Each
has a file of its own, with the functions for a single mask: `coco_rle`, `coco_polygons`, `brush_rle`,
`percent_polygons`, `mask_rle`, `polygon_points`, `layers`.
"""

from __future__ import annotations

from ambiseg.exchange.coco import coco_polygons, coco_rle
from ambiseg.exchange.cvat import mask_rle, polygon_points
from ambiseg.exchange.formats import FORMATS, Converted, convert
from ambiseg.exchange.images import AnnotatedImages, Hypotheses, PredictedImages
from ambiseg.exchange.label_studio import brush_rle, percent_polygons
from ambiseg.exchange.napari import layers
from ambiseg.exchange.outlines import polygons
from ambiseg.exchange.settings import ConvertSettings

__all__ = [
    "FORMATS",
    "AnnotatedImages",
    "ConvertSettings",
    "Converted",
    "Hypotheses",
    "PredictedImages",
    "brush_rle",
    "coco_polygons",
    "coco_rle",
    "convert",
    "layers",
    "mask_rle",
    "percent_polygons",
    "polygon_points",
    "polygons",
]
