"""Why an image finds no masks: the likely cause, from the names in the folder of the masks."""

from __future__ import annotations

import unicodedata
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from ambiseg.data.files.reading import IMAGE_SUFFIXES, MASK_SUFFIXES, stem_of, suffix_of
from ambiseg.data.files.validation import FileProblem

_FOLDERS = 100
"""So many folders are searched for files that have the name of an image."""


class Cause(NamedTuple):
    """What was found in place of the masks of an image."""

    found: Path
    problem: str
    remedy: str


class MaskNames:
    """The names in a folder ``masks``.

    Args:
        masks: the folder; it may be missing.
    """

    def __init__(self, masks: Path) -> None:
        self.masks = masks

    @cached_property
    def _entries(self) -> list[Path]:
        return sorted(self.masks.iterdir()) if self.masks.is_dir() else []

    @cached_property
    def _folders(self) -> list[Path]:
        return [entry for entry in self._entries[:_FOLDERS] if entry.is_dir()]

    @cached_property
    def _alike(self) -> dict[str, Path]:
        """Entries by their plain name: composed characters, lower case, no suffix of an image."""
        return {_plain(entry.name): entry for entry in reversed(self._entries)}

    def cause(self, sample_id: str) -> Cause | None:
        """Why the image has no folder of masks; None if nothing in the folder tells."""
        found = self._alike.get(_plain(sample_id))
        if found is not None and found.name != sample_id:
            right = f"rename the folder to masks/{sample_id}"
            if not found.is_dir():
                return Cause(
                    found,
                    "the mask lies beside the folders",
                    f"let 'ambiseg data init' find it, or move it to masks/{sample_id}/<annotator>{suffix_of(found)}",
                )
            if unicodedata.normalize("NFC", found.name) == unicodedata.normalize("NFC", sample_id):
                how = "the folder has the name of its image in another Unicode form (NFC, NFD)"
                return Cause(found, how, "rename folder and image in the same form, NFC")
            if suffix_of(found) in IMAGE_SUFFIXES:
                return Cause(found, f"the name of the folder ends with {suffix_of(found)}", right)
            return Cause(found, "the name of the folder has other capital letters than its image", right)
        for folder in self._folders:
            for suffix in MASK_SUFFIXES:
                if (folder / f"{sample_id}{suffix}").is_file():
                    return Cause(
                        folder / f"{sample_id}{suffix}",
                        "the folders of the masks are annotators, not images",
                        f"let 'ambiseg data init' find them, or order them as masks/<image>/<annotator>:"
                        f" masks/{sample_id}/{folder.name}{suffix}",
                    )
        return None

    def missing(self, sample_id: str) -> FileProblem:
        """The problem that an image has no mask, with its likely cause."""
        cause = self.cause(sample_id)
        if cause is not None:
            return FileProblem(*cause)
        return FileProblem(
            self.masks / sample_id, "the image has no mask", "add <annotator>.png here or leave the image out"
        )


def _plain(name: str) -> str:
    stem = stem_of(name) if suffix_of(name) in IMAGE_SUFFIXES else name
    return unicodedata.normalize("NFC", stem).casefold()
