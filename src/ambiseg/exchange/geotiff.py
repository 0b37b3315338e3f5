"""GeoTIFF: a file for each mask, where its image lies on the earth.

Reference: OGC GeoTIFF standard 1.1 (19-008r4); read and written by GDAL through rasterio.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tifffile

from ambiseg.data.files.orientation import TAG
from ambiseg.data.files.reading import suffix_of
from ambiseg.data.files.validation import FileProblem
from ambiseg.escaping import visible
from ambiseg.exchange.images import Hypotheses, Images, check_size_of
from ambiseg.exchange.outcome import Outcome, images_without
from ambiseg.exchange.packages import package
from ambiseg.exchange.settings import ConvertSettings
from ambiseg.labels import LabelSpace

_REMEDY = "name the folder of the GeoTIFF images (--images), or --allow-no-georeference to write plain TIFF"


@dataclass(frozen=True)
class Georeference:
    """Where the pixels of an image lie: coordinate system with transform, or with ground control points."""

    crs: Any = None
    transform: Any = None
    points: list[Any] = field(default_factory=list)

    @property
    def profile(self) -> dict[str, Any]:
        """Arguments of ``rasterio.open``."""
        if self.crs is None:
            return {}
        return {"crs": self.crs, **({"gcps": self.points} if self.points else {"transform": self.transform})}


def read_georeference(one: Hypotheses) -> Georeference | None:
    """The georeference of an image's file; None where it has none, or the file is gone or no TIFF.

    Raises:
        AmbisegError: rasterio is missing; the file cannot be read, has another size than the masks, or a tag
            that turns it.
    """
    path = one.file
    if path is None or suffix_of(path) not in (".tif", ".tiff"):
        return None
    rasterio = package("rasterio", "formats", "GeoTIFF needs")
    try:
        with tifffile.TiffFile(path) as tiff:
            turned = tiff.pages.first.tags.get(TAG)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with rasterio.open(path, driver="GTiff") as source:
                size, crs, transform = (source.height, source.width), source.crs, source.transform
                points, system = source.gcps
    except Exception as error:
        raise FileProblem(path, f"cannot be read as GeoTIFF ({error})", "export it again") from error
    check_size_of(one, path, size)
    if turned is not None and turned.value not in (0, 1) and (crs or system):
        raise FileProblem(path, f"its orientation tag is {turned.value}", "save it the right way up")
    if crs:
        return None if transform.is_identity else Georeference(crs, transform)
    return Georeference(system, points=points) if system and points else None


def write_geotiff(images: Images, partial: Path, settings: ConvertSettings) -> Outcome:
    """Write ``<image>/mask-01.tif`` and so on into a folder.

    Raises:
        AmbisegError: an image has no georeference, unless the settings allow that.
    """
    without = 0
    for one in images:
        place = read_georeference(one)
        if place is None:
            if not settings.allow_no_georeference:
                problem = "it is gone" if one.file is None else "it has no georeference"
                raise FileProblem(one.path or one.image, problem, _REMEDY)
            without += 1
        (partial / one.name).mkdir()
        for k in range(len(one.masks)):
            _write(
                partial / one.name / f"mask-{k + 1:02}.tif", one, k, images.labels, place or Georeference()
            )
    return images_without(without, len(images), "georeference")


def _write(partial: Path, one: Hypotheses, k: int, labels: LabelSpace, place: Georeference) -> None:
    rasterio = package("rasterio", "formats", "GeoTIFF needs")
    facts = one.facts(k)
    profile = {
        "driver": "GTiff",
        "dtype": "uint8",
        "count": 1,
        "compress": "deflate",
        "height": one.size[0],
        "width": one.size[1],
        **({} if labels.ignore_value is None else {"nodata": labels.ignore_value}),
        **place.profile,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(partial, "w", **profile) as target:
            target.write(one.masks[k], 1)
            target.write_colormap(1, {c: (*color, 255) for c, color in enumerate(labels.colors)})
            target.set_band_description(
                1, visible(f"{one.annotators[k]}, probability {one.probabilities[k]:.4g}")
            )
            texts = {"image": one.image, **facts}
            texts |= {f"class_{c}": name for c, name in enumerate(labels.names)}
            target.update_tags(
                **{f"AMBISEG_{key.upper()}": visible(str(text)) for key, text in texts.items()}
            )
