"""NIfTI: the masks of an image along the fourth axis of one file, with the affine of the image.

Reference: Cox et al. (2004), A (sort of) new image data format standard: NIfTI-1.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ambiseg.atomic_write import write_json
from ambiseg.exchange.images import Hypotheses, Images
from ambiseg.exchange.outcome import Outcome, images_without
from ambiseg.exchange.settings import ConvertSettings


def write_nifti(images: Images, partial: Path, settings: ConvertSettings) -> Outcome:
    """Write ``<image>.nii.gz`` ``(H, W, 1, K)`` and ``<image>.json`` into a folder."""
    import nibabel

    without = 0
    for one in images:
        without += one.affine is None
        values = np.ascontiguousarray(one.masks.transpose(1, 2, 0)[:, :, None])
        found = nibabel.Nifti1Image(values, np.eye(4) if one.affine is None else one.affine)
        nibabel.save(found, partial / f"{one.name}.nii.gz")
        write_json(partial / f"{one.name}.json", _sidecar(one, images.labels.names))
    return images_without(without, len(images), "affine: the identity was written")


def _sidecar(one: Hypotheses, classes: tuple[str, ...]) -> dict[str, object]:
    """What the header has no place for."""
    masks = [one.facts(k) for k in range(len(one.masks))]
    return {"image": one.image, "classes": list(classes), "masks": masks}
