"""The folders of this library: ``SPLIT/images/<id>.<suffix>`` and ``SPLIT/masks/<id>/<annotator>.<suffix>``."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path

from ambiseg.data.files.reading import IMAGE_SUFFIXES, MASK_SUFFIXES, suffix_of
from ambiseg.data.files.validation import FileProblem
from ambiseg.data.listing import SplitFiles, ordered_splits, read_weights, scan_folder, unknown_ids
from ambiseg.data.mask_names import MaskNames


def standard_splits(root: str | PathLike[str]) -> list[str]:
    """Names of the folders in ``root`` that hold an ``images`` folder."""
    folders = (path for path in Path(root).iterdir() if not path.name.startswith("."))
    return ordered_splits(path.name for path in folders if (path / "images").is_dir())


class StandardFiles(SplitFiles):
    """Files of one split.

    Args:
        root: the data set.
        split: name of its folder.
        volumes: whether folders with DICOM files are images and masks, too.
    """

    def __init__(self, root: Path, split: str, volumes: bool = False) -> None:
        self.root, self.folder, self.volumes = root, root / split, volumes
        files, problems = scan_folder(self.folder / "images", root, IMAGE_SUFFIXES, "image", volumes)
        self.images = {name: (path,) for name, path in files.items()}
        self.weights_file = self.folder / "weights.csv"
        self.weights, wrong = read_weights(self.weights_file, root)
        self._unread = {Path(problem.file).name for problem in problems}
        self.problems = problems + wrong + unknown_ids(self.weights, files, self.weights_file)
        self._names = MaskNames(self.folder / "masks")

    def masks(self, sample_id: str) -> tuple[dict[str, Path], list[FileProblem]]:
        """Files of the folder with the name of the image."""
        return scan_folder(self.folder / "masks" / sample_id, self.root, MASK_SUFFIXES, "mask")

    def masks_place(self, sample_id: str) -> str:
        """The folder."""
        return str(self.folder / "masks" / sample_id)

    def without_masks(self, ids: Sequence[str]) -> list[FileProblem]:
        """The likely cause for each image, as the names tell it."""
        return [self._without_masks(sample_id) for sample_id in ids]

    def _without_masks(self, sample_id: str) -> FileProblem:
        if (self.folder / "masks" / sample_id).is_dir() or self._names.cause(sample_id) is not None:
            return self._names.missing(sample_id)
        remedy = f"add masks/{sample_id}/<annotator>.png"
        return FileProblem(self.images[sample_id][0], "the image has no masks folder", remedy)

    def strays(self) -> list[FileProblem]:
        """What lies in the folder of the masks and has not the name of an image."""
        masks = self.folder / "masks"
        bare = (sample_id for sample_id in self.images if not (masks / sample_id).is_dir())
        causes = [cause for cause in map(self._names.cause, bare) if cause is not None]
        explained = {part for cause in causes for part in (cause.found, cause.found.parent)}
        paths = sorted(masks.iterdir()) if masks.is_dir() else []
        return [
            self._stray(path)
            for path in paths
            if path.name not in self.images and not path.name.startswith(".") and path not in explained
        ]

    def _stray(self, masks: Path) -> FileProblem:
        if not masks.is_dir():
            place = f"masks/<id>/<annotator>{suffix_of(masks) or '.png'}"
            return FileProblem(masks, "the mask belongs to no image", f"move it to {place}")
        unread = next((name for name in self._unread if name.startswith(f"{masks.name}.")), None)
        why = f" (images/{unread} cannot be read)" if unread else ""
        return FileProblem(
            masks, f"masks without an image{why}", "add the image, or give the folder the name of its image"
        )
