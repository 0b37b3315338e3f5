"""Where the images and masks of a stranger's folder lie: the layout that explains most of them, or why none does."""

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from unicodedata import normalize

from ambiseg.data.files.reading import IMAGE_SUFFIXES, MASK_SUFFIXES, suffix_of
from ambiseg.data.files.validation import FileProblem
from ambiseg.data.guess.looks import Looks
from ambiseg.data.guess.recognisers import MASKS, Candidate, candidates
from ambiseg.data.listing import stays_inside
from ambiseg.data.pattern_files import EXAMPLES
from ambiseg.data.pattern_matching import Found, Key, assign, files_below
from ambiseg.data.patterns import FilePatterns, Pattern
from ambiseg.errors import AmbisegError

MOST_VALUES = 50
"""Annotators or splits that a pattern lists by name."""
_HEAD = 1 << 16
"""Characters of a file that tell which tool wrote it."""
_EXPORTS = {
    "label-studio": ("[", ['"annotations"', '"data"']),
    "coco": ("{", ['"images"']),
    "cvat": ("<", ["<annotations"]),
}
"""How an export of each importer begins, and words that are in it."""
_FOREIGN = frozenset("|{}*?")
_COLLIDING = "rename one of them, or say which with --masks"


@dataclass(frozen=True)
class Guess:
    """What was understood of a folder.

    Attributes:
        title: the layout in words.
        files: the patterns, relative to the folder.
        found: images and masks.
        unused: files that could be read and are neither.
    """

    title: str
    files: FilePatterns
    found: Found
    unused: tuple[str, ...]

    @property
    def annotators(self) -> Counter[str]:
        """Masks of each annotator."""
        return Counter(name for masks in self.found.masks.values() for name in sorted(masks))

    @property
    def with_masks(self) -> list[Key]:
        """The images that have masks."""
        return sorted(key for key in self.found.images if self.found.masks.get(key))

    @property
    def mask_paths(self) -> list[str]:
        """All masks."""
        return sorted(path for masks in self.found.masks.values() for path in masks.values())


def guess(folder: Path, images: Sequence[str] = (), masks: Sequence[str] = ()) -> Guess:
    """Find the images and masks of a folder.

    Args:
        folder: where the data lie.
        images: patterns of the images; all known layouts are tried where there are none.
        masks: patterns of the masks.

    Raises:
        AmbisegError: no layout fits, two fit, or two files are the same mask.
    """
    if not folder.is_dir():
        raise AmbisegError(f"{folder} is not a folder: name the folder of your images and masks")
    paths = [path for path in files_below(folder, skip_ours=True, series=True) if not path.endswith("/")]
    if bool(images) != bool(masks):
        raise AmbisegError("--images and --masks belong together: give both, or none of them")
    if images:
        chosen = Candidate("as --images and --masks say", FilePatterns(_patterns(images), _patterns(masks)))
        found = assign(paths, chosen.files)
        _require(folder, paths, found, chosen.files)
    else:
        best = _best(folder, paths) or _best_inside(folder, paths)
        if best is None:
            raise _nothing_fits(folder, paths)
        chosen, found = best, assign(paths, best.files)
    files = _listed(chosen.files, found, set() if images else Looks(folder).no_masks(found))
    if not images:
        found = assign(paths, files)
    _refuse_collisions(folder, found)
    used = {
        path for place in (found.images, found.masks) for some in place.values() for path in some.values()
    }
    return Guess(chosen.title, files, found, tuple(path for path in paths if path not in used))


def _patterns(texts: Iterable[str]) -> tuple[Pattern, ...]:
    return tuple(Pattern(text.removeprefix("./")) for text in texts)


def _require(folder: Path, paths: Sequence[str], found: Found, files: FilePatterns) -> None:
    """Refuse patterns of the user that find nothing."""
    for what, some, patterns, suffixes in (
        ("image", found.images, files.images, IMAGE_SUFFIXES),
        ("mask", found.masks, files.masks, MASK_SUFFIXES),
    ):
        if not some:
            texts = ", ".join(pattern.text for pattern in patterns)
            examples = ", ".join([path for path in paths if suffix_of(path) in suffixes][:EXAMPLES]) or "none"
            named = " of an image that was found" if what == "mask" else ""
            raise FileProblem(
                folder, f"no {what}{named} fits {texts}", f"correct --{what}s; files there are {examples}"
            )


def _best_inside(folder: Path, paths: Sequence[str]) -> Candidate | None:
    """The best layout of the folder in ``folder`` that all files are in, if there is one."""
    inside = os.path.commonprefix([path.split("/")[:-1] for path in paths])
    if not inside or _FOREIGN & set("".join(inside)):
        return None
    before = "/".join(inside) + "/"
    best = _best(folder / before, [path.removeprefix(before) for path in paths])
    if best is None:
        return None
    images, masks = (
        [before + pattern.text for pattern in some] for some in (best.files.images, best.files.masks)
    )
    return Candidate(best.title, FilePatterns(_patterns(images), _patterns(masks)))


def _best(folder: Path, paths: Sequence[str]) -> Candidate | None:
    """The layout with masks of most images, then with most masks; an error where another one is as good."""
    if not paths:
        raise FileProblem(
            folder,
            f"no file in it can be read ({', '.join(IMAGE_SUFFIXES)})",
            "name the folder of your images and masks",
        )
    looks = Looks(folder)
    tried = []
    for candidate in dict.fromkeys(candidates(paths, looks.image_folders(paths))):
        found = assign(paths, candidate.files)
        covered = len(found.masks)
        if covered and 2 * covered >= len(found.images) and looks.masks_right(found):
            tried.append(
                (looks.images_right(found), covered, sum(map(len, found.masks.values())), candidate, found)
            )
    if not tried:
        return None
    likely = [entry[1:] for entry in tried if entry[0]] or [entry[1:] for entry in tried]
    likely.sort(key=lambda entry: (-entry[0], -entry[1]))  # stable: the order of preference stays
    covered, count, best, found = likely[0]
    for one, other, candidate, rest in likely[1:]:
        if 2 * one >= covered and 2 * other >= count and _contradict(found, rest):
            raise _two_fit(folder, [(best, covered, count), (candidate, one, other)])
    return best


def _owners(found: Found) -> dict[str, tuple[str, ...]]:
    """The files of the image of each mask."""
    return {
        path: tuple(found.images[key].values())
        for key, masks in found.masks.items()
        for path in masks.values()
    }


def _contradict(one: Found, other: Found) -> bool:
    """Whether the second layout has many masks that the first has not, or of other images."""
    first, second = _owners(one), _owners(other)
    different = sum(first.get(path) != image for path, image in second.items())
    return 2 * different >= len(first)


def _two_fit(folder: Path, found: Sequence[tuple[Candidate, int, int]]) -> FileProblem:
    told, options = [], []
    for candidate, images, masks in found:
        told.append(f"{candidate.title} ({masks} masks of {images} images)")
        images_of, masks_of = (
            shlex.join(p.text for p in some) for some in (candidate.files.images, candidate.files.masks)
        )
        options.append(f"--images {images_of} --masks {masks_of}")
    return FileProblem(
        folder,
        f"two layouts fit: {' and '.join(told)}",
        f"choose one: {' or '.join(options)}; for the masks of both, give all their patterns to --masks",
    )


def _nothing_fits(folder: Path, paths: Sequence[str]) -> FileProblem:
    lossy = [
        path
        for path in paths
        if suffix_of(path) not in MASK_SUFFIXES
        and any(part.lower() in MASKS for part in path.split("/")[:-1])
    ]
    if lossy:
        return FileProblem(
            folder / lossy[0],
            f"{len(lossy)} masks are {suffix_of(lossy[0])[1:].upper()}, which alters class numbers",
            "convert them to PNG",
        )
    export = _export(folder)
    if export is not None:
        return export
    examples = ", ".join(paths[:EXAMPLES])
    names = {path.rpartition("/")[2].removesuffix(suffix_of(path)) for path in paths}
    plain = Counter(normalize("NFC", name) for name in names)
    accents = sorted(name for name, count in plain.items() if count > 1)
    if accents:
        return FileProblem(
            folder,
            f"{len(accents)} names are written with two encodings of accents, such as {accents[0]}",
            "rename images and masks alike; macOS writes accents as letters of their own",
        )
    return FileProblem(
        folder,
        f"no known layout fits its {len(paths)} files, such as {examples}",
        "say where they lie, such as --images 'scans/{id}.*' --masks 'masks/{id}_{annotator}.*'",
    )


def _export(folder: Path) -> FileProblem | None:
    """That the folder holds annotations of a tool, which an importer draws as masks."""
    for file in sorted([*folder.glob("*.[jx][sm]*"), *folder.glob("annotations/*.[jx][sm]*")]):
        if not file.is_file() or not stays_inside(file, folder):
            continue
        with open(file, encoding="utf-8", errors="replace") as stream:
            head = stream.read(_HEAD).lstrip("\ufeff \n\r\t")
        for name, (start, words) in _EXPORTS.items():
            if head.startswith(start) and all(word in head for word in words):
                command = shlex.join(["ambiseg", "data", "import", name, str(folder), "--out", "NEW"])
                told = f"these are annotations of a tool ({name}), not masks"
                return FileProblem(file, told, f"type '{command}', then train on NEW")
    return None


def _refuse_collisions(folder: Path, found: Found) -> None:
    if found.twice:
        one, other, what = found.twice[0]
        more = f" (and {len(found.twice) - 1} more such pairs)" if len(found.twice) > 1 else ""
        raise FileProblem(folder, f"{one} and {other} are both {what}{more}", _COLLIDING)


def _listed(files: FilePatterns, found: Found, without: set[str]) -> FilePatterns:
    """The patterns with the annotators that there are, ``without`` some, so that no other file is taken for a mask
    later; and with the name of a folder that is the same for all images in place of its field."""
    masks = []
    for pattern in files.masks:
        names: dict[str, None] = {}
        for key, some in found.masks.items():
            for name, path in some.items():
                fields = next(pattern.matches(path, [len(key.id)]), None)
                if fields is not None and fields.get("annotator") == name and name not in without:
                    names[name] = None
        listed = "|".join(sorted(names))
        plain = names and len(names) <= MOST_VALUES and not _FOREIGN & set("".join(names))
        text = pattern.text.replace("{annotator}", f"{{annotator:{listed}}}") if plain else pattern.text
        masks.append(Pattern(text))
    groups = {key.group for key in found.images}
    one = groups.pop() if len(groups) == 1 else ""
    if not one or _FOREIGN & set(one):
        return replace(files, masks=tuple(masks))
    texts = [[pattern.text.replace("{group}", one) for pattern in some] for some in (files.images, masks)]
    return replace(files, images=_patterns(texts[0]), masks=_patterns(texts[1]))
