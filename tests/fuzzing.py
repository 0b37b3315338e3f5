"""Damaged inputs: a seeded mutator, a corpus that is made here, and all readers of the library.

A reader that gets a damaged file may give the right value, or raise one `AmbisegError` of one line that names the file.
Where stored numbers have checksums it may not give other numbers. Anything else is wrong: another exception, more than
10 s or 1 GiB, a file written or a program started elsewhere, a process that dies.

`benchmarks/reliability/fuzz.py` and ``tests/test_fuzz.py`` use it.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import math
import os
import pickle
import random
import re
import resource
import select
import shutil
import signal
import struct
import sys
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import fuzz_corpus as corpus
from ambiseg.cli.main import main
from ambiseg.data.files.reading import read_image, read_mask
from ambiseg.data.importers import import_dataset
from ambiseg.data.info import DatasetInfo, info_of_file
from ambiseg.data.listing import read_columns
from ambiseg.data.source import list_splits, open_split
from ambiseg.data.volumes.volume import open_volume
from ambiseg.engine.checkpoints import load_checkpoint
from ambiseg.engine.curve import training_curve
from ambiseg.engine.mixture import MixtureConfig
from ambiseg.engine.run_folder import RunConfig, load_weights
from ambiseg.engine.suite import load_suite
from ambiseg.errors import AmbisegError
from ambiseg.maskset import MaskSet
from ambiseg.owned_files import check_replaceable, foreign, listed
from ambiseg.predictions.index import PredictionIndex

SECONDS, BYTES = 10, 1 << 30
"""What a reader may take: time of the processor, and memory that it really uses; it may ask for four times as much."""
OUTCOMES = ("right", "clear error", "checksum", "WRONG")
_CHECKSUM = re.compile(r"checksum|fletcher32|filter returned failure|CRC|file is damaged", re.IGNORECASE)
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
_WORD = re.compile(rb"[A-Za-z_]{2,}")
_NUMBERS = (
    b"0", b"-1", b"-7.5", b"1e400", b"NaN", b".nan", b"-.inf", b"Infinity", b"9" * 18, b"9" * 400, b"1e-320", b"2147483648",
    b"18446744073709551616", b"0x10", b"1_000", b"null", b"true", b"[]", b"{}", b'"x"', b"", b"..", b"/etc/passwd",
    "\u0663\u0664".encode(), b"\xff\xfe", b"\x1b[2J",
)  # fmt: skip


# -- mutations -------------------------------------------------------------------------------------------------


def mutate(rng: random.Random, content: bytes, others: Sequence[bytes]) -> tuple[bytes, bool]:
    """Damaged content, and whether its checksums were made anew."""
    damage = rng.choice(
        (_flip, _flip, _truncate, _cut, _splice, _repeat, _zeros, _length, _length, _text, _text, _text)
    )
    if damage is not _splice and rng.random() < 0.4:
        inner = _inside(rng, content, lambda part: damage(rng, part, others))
        if inner is not None:
            return inner, True
    return damage(rng, content, others), False


def _flip(rng: random.Random, content: bytes, _: Sequence[bytes]) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 4, 16)) if changed else 0):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _truncate(rng: random.Random, content: bytes, _: Sequence[bytes]) -> bytes:
    return content[: rng.randrange(len(content) + 1)]


def _block(rng: random.Random, content: bytes) -> tuple[int, int]:
    first = rng.randrange(len(content) + 1)
    return first, min(len(content), first + rng.choice((1, 4, 64, 1000)))


def _cut(rng: random.Random, content: bytes, _: Sequence[bytes]) -> bytes:
    first, last = _block(rng, content)
    return content[:first] + content[last:]


def _splice(rng: random.Random, content: bytes, others: Sequence[bytes]) -> bytes:
    other = rng.choice(others)
    if rng.random() < 0.3:
        return other
    return content[: rng.randrange(len(content) + 1)] + other[rng.randrange(len(other) + 1) :]


def _repeat(rng: random.Random, content: bytes, _: Sequence[bytes]) -> bytes:
    first, last = _block(rng, content)
    return content[:last] + content[first:last] * rng.choice((1, 2, 50)) + content[last:]


def _zeros(rng: random.Random, content: bytes, _: Sequence[bytes]) -> bytes:
    first, last = _block(rng, content)
    return content[:first] + bytes(rng.choice((1, 4, 500))) + content[rng.choice((first, last)) :]


def _length(rng: random.Random, content: bytes, _: Sequence[bytes]) -> bytes:
    """A number of 2, 4 or 8 bytes, most of them near the beginning, becomes another one."""
    kind = rng.choice("HIQ")
    place = rng.randrange(max(1, min(len(content), rng.choice((128, 1024, len(content))))))
    value = rng.choice(
        (0, 1, 2, 255, 1 << 15, (1 << 16) - 1, 1 << 31, (1 << 31) - 1, (1 << 32) - 1, 1 << 40, (1 << 64) - 1)
    )
    number = struct.pack(rng.choice("<>") + kind, value % (1 << 8 * struct.calcsize(kind)))
    return content[:place] + number + content[place + len(number) :]


def _text(rng: random.Random, content: bytes, _: Sequence[bytes]) -> bytes:
    """A number or word becomes another one."""
    found = list((rng.choice((_NUMBER, _NUMBER, _WORD))).finditer(content[:200_000]))
    if not found:
        return _flip(rng, content, ())
    place, words = rng.choice(found), [match.group() for match in found]
    new = rng.choice(_NUMBERS) if rng.random() < 0.7 else rng.choice(words)
    return content[: place.start()] + new + content[place.end() :]


def _inside(rng: random.Random, content: bytes, damage: Callable[[bytes], bytes]) -> bytes | None:
    """The same below a layer of checksums or compression: gzip, zip, the chunks of PNG; None for other files."""
    if content[:2] == b"\x1f\x8b":
        return gzip.compress(damage(gzip.decompress(content)), 1, mtime=0)
    if content[:4] == b"PK\3\4":
        out = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(out, "w") as new:
            chosen = rng.choice(old.infolist())
            for part in old.infolist():
                data = old.read(part)
                new.writestr(part, damage(data) if part is chosen else data)
        return out.getvalue()
    if content[:4] == b"\x89PNG":
        chunks, place = [], 8
        while place + 12 <= len(content):
            (length,) = struct.unpack(">I", content[place : place + 4])
            chunks.append((content[place + 4 : place + 8], content[place + 8 : place + 8 + length]))
            place += 12 + length
        at = rng.randrange(len(chunks))
        kind, data = chunks[at]
        data = (
            zlib.compress(damage(zlib.decompress(data)))
            if kind == b"IDAT" and rng.random() < 0.5
            else damage(data)
        )
        chunks[at] = (kind, data)
        parts = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
        return content[:8] + b"".join(parts)
    return None


class _Executed:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("executed-by-a-reader",)


HOSTILE = (
    b"",
    pickle.dumps(_Executed()),
    pickle.dumps(_Executed(), 0),
    b"!!python/object/apply:os.mkdir [executed-by-a-reader]\n",
    b"a: &a [x, x, x]\nb: &b [*a, *a, *a]\nc: [*b, *b, *b]\n",
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><a>&b;</a>',
    gzip.compress(bytes(1 << 26), mtime=0),
)


# -- readers ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reader:
    """A reader and the files that it gets.

    Attributes:
        name: in the table.
        corpus: the folder of the corpus that is copied, and files of it that are damaged, as a glob pattern.
        read: reads the copy, given the damaged file; returns what it found.
        checked: the stored numbers have checksums.
        share: of all mutations, relative to the others; small where a reader takes long.
    """

    name: str
    corpus: tuple[str, str]
    read: Callable[[Path, Path], Any]
    checked: bool = False
    share: float = 1.0


def _image(_: Path, file: Path) -> str:
    image = read_image(file)
    assert image.ndim == 3 and image.size and np.isfinite(image).all(), "no image"
    return f"{image.dtype} {image.shape}"


def _mask(_: Path, file: Path) -> str:
    mask = read_mask(file)
    assert mask.ndim == 2 and mask.dtype == np.uint8 and mask.size, "no mask"
    return f"{mask.shape}"


def _volume(root: Path, file: Path) -> str:
    own = {".dcm": file.parent, ".raw": root / "apart.nhdr"}.get(file.suffix, file)
    volume = open_volume(own)
    return str([volume.plane(axis, volume.shape[axis] // 2).mean() for axis in range(3)])


def _info(_: Path, file: Path) -> str:
    info = info_of_file(file, "fallback")
    assert DatasetInfo.from_yaml(info.to_yaml()) == info, "dataset.yaml does not come back"
    return info.to_yaml()


def _data(path: Path) -> str:
    """A digest of all that a data set holds."""
    total = hashlib.sha256()
    for name in list_splits(path):
        for sample in open_split(path, name):
            assert np.isfinite(sample.image).all() and abs(sample.weights.sum() - 1) < 1e-6, "no sample"
            assert (sample.weights >= 0).all(), "a negative weight"
            total.update(
                f"{name} {sample.id} {sample.annotators} {sample.image.dtype} {sample.image.shape}".encode()
            )
            for part in (sample.image, sample.masks, sample.weights):
                total.update(np.ascontiguousarray(part).tobytes())
    return total.hexdigest()


def _packed(_: Path, file: Path) -> str:
    return _data(file) + open_split(file, list_splits(file)[0]).info.to_yaml()


def _import(
    name: str, source: Callable[[Path, Path], Path] = lambda root, _: root, **options: Any
) -> Callable[[Path, Path], str]:
    def read(root: Path, file: Path) -> str:
        settings = corpus.importer_settings(name, root, options)
        out = root.parent / "out"
        import_dataset(name, source(root, file), out, settings)
        return _data(out)

    return read


def _weights(root: Path, _: Path) -> str:
    state = load_weights(root, RunConfig.load(root)).state_dict()
    return _plain({name: value for name, value in sorted(state.items())})


def _checkpoint(_: Path, file: Path) -> str:
    return _plain(load_checkpoint(file))


def _plain(value: Any) -> str:
    """A digest of tensors in plain containers."""
    if isinstance(value, torch.Tensor):
        return hashlib.sha256(value.contiguous().view(-1).view(torch.uint8).numpy().tobytes()).hexdigest()
    if isinstance(value, dict):
        return hashlib.sha256("".join(f"{k}={_plain(v)};" for k, v in value.items()).encode()).hexdigest()
    if isinstance(value, (list, tuple)):
        return hashlib.sha256("".join(map(_plain, value)).encode()).hexdigest()
    return repr(value)


def _curve(root: Path, _: Path) -> str:
    rows = training_curve(root)
    assert all(isinstance(value, float) for row in rows for value in row.values())
    return str(len(rows))


def _mask_set(_: Path, file: Path) -> str:
    found = MaskSet.load(file)
    sums = found.weights.sum(1)
    assert bool(torch.isfinite(found.weights).all()) and bool(((sums - 1).abs() < 1e-3).all()), "no weights"
    return f"{tuple(found.masks.shape)}"


def _owned(root: Path, _: Path) -> str:
    assert not any(name.startswith("/") or ".." in Path(name).parts for name in listed(root)), (
        "a name that leads out"
    )
    foreign(root)
    check_replaceable(root, ["predict"])
    return ""


def _index(root: Path, _: Path) -> str:
    index = PredictionIndex(root)
    index.begin({"run": "x", "seed": 0})
    entry = index.done(Path("new.npy"), "new")
    assert entry is None or (int(entry["masks"]) >= 0 and entry["determined"] in (True, False)), "no entry"
    return str(entry)


def _command(*words: str) -> Callable[[Path, Path], str]:
    """A command on the copy; ``@`` stands for its folder, ``%`` for the undamaged corpus (see `outcomes`)."""

    def read(root: Path, _: Path) -> str:
        args = [word.replace("@", str(root)).replace("%", str(root.parents[2] / "corpus")) for word in words]
        with redirect_stdout(io.StringIO()) as shown, redirect_stderr(io.StringIO()) as told:
            status = main(args)
        lines = [line for line in told.getvalue().splitlines() if line.strip()]
        if status == 2:
            raise _Refused(lines[-1] if lines else " ".join(shown.getvalue().split()))
        assert status == 0, f"exit status {status}: {lines[-1:]}"
        return ""

    return read


class _Refused(AmbisegError):
    """What a command said with status 2."""


def _first(root: Path, file: Path) -> Path:
    return file


def _xml(root: Path, file: Path) -> Path:
    return root / "xml"


READERS: tuple[Reader, ...] = (
    *(Reader(f"image {kind}", ("pictures", f"image-*.{kind}"), _image, share=3) for kind in corpus.IMAGE_KINDS),
    *(Reader(f"mask {kind}", ("pictures", f"mask-*.{kind}"), _mask, share=3) for kind in corpus.MASK_KINDS),
    Reader("volume", ("volumes", "**/*.*"), _volume, share=4),
    Reader("dataset.yaml", ("info", "*.yaml"), _info, share=2),
    Reader("weights.csv", ("folder", "*/weights.csv"), lambda root, _: _data(root)),
    Reader("data folder", ("folder", "*/*/**/*.*"), lambda root, _: _data(root)),
    Reader("packed data", ("packed", "*.h5"), _packed, checked=True, share=3),
    Reader("data elsewhere", ("located", "*.[cy]*"), lambda root, _: _data(root)),
    Reader("import label-studio", ("label-studio", "*.json"), _import("label-studio")),
    Reader("import cvat", ("cvat", "annotations/*.xml"), _import("cvat")),
    Reader("import coco", ("coco", "annotations/*.json"), _import("coco")),
    Reader("import lidc", ("lidc", "**/*.*"), _import("lidc", lambda root, _: root / "dicom"), share=0.2),
    Reader("import lidc-annotations, sqlite", ("lidc", "*.sqlite"), _import("lidc-annotations", _first), share=0.4),
    Reader("import lidc-annotations, XML", ("lidc", "xml/**/*.xml"), _import("lidc-annotations", _xml), share=0.2),
    Reader("import lidc-crops, pickle", ("crops", "*.pickle"), _import("lidc-crops", _first)),
    Reader("import lidc-crops, HDF5", ("crops", "*.hdf5"), _import("lidc-crops", _first, split="stored")),
    Reader("import bsds", ("bsds", "**/*.*"), _import("bsds"), share=0.5),
    Reader("import arrays", ("arrays", "*.npz"), _import("arrays")),
    Reader("import mmfire", ("mmfire", "*.npy"), _import("mmfire")),
    Reader("import camvid, npz", ("camvid-npz", "*.npz"), _import("camvid")),
    Reader("import camvid", ("camvid", "**/*.png"), _import("camvid"), share=0.3),
    Reader("import cityscapes", ("cityscapes", "**/*.png"), _import("cityscapes"), share=0.3),
    Reader("import refuge", ("refuge", "**/*.*"), _import("refuge"), share=0.3),
    Reader("import isic", ("isic", "**/*.*"), _import("isic"), share=0.3),
    Reader("import qubiq", ("qubiq", "**/*.gz"), _import("qubiq"), share=0.3),
    Reader("import nifti", ("nifti", "**/*.gz"), _import("nifti"), share=0.3),
    Reader("list of splits", ("lists", "*.csv"), lambda _, file: str(read_columns(file, "split"))),
    Reader("config.yaml", ("run", "config.yaml"), lambda root, _: str(RunConfig.load(root)), share=3),
    Reader("mixture.yaml", ("mixture", "mixture.yaml"), lambda root, _: str(MixtureConfig.load(root)), share=2),
    Reader("model.safetensors", ("run", "model.safetensors"), _weights, checked=True, share=3),
    Reader("last.ckpt", ("run", "checkpoints/last.ckpt"), _checkpoint, checked=True, share=3),
    Reader("logs/metrics.csv", ("run", "logs/*/metrics.csv"), _curve),
    Reader("suite", ("suites", "*.yaml"), lambda _, file: str(load_suite(file)), share=2),
    Reader("MaskSet", ("masksets", "*.npz"), _mask_set, share=2),
    Reader(".ambiseg-files", ("predictions", ".ambiseg-files"), _owned),
    Reader("predictions.jsonl", ("predictions", "predictions.jsonl"), _index),
    Reader("predict", ("run", "[cm]*.*"), _command("predict", "@", "%/new.npy", "--out", "@/../out"), share=0.1),
    Reader("evaluate", ("run", "[cm]*.*"), _command("evaluate", "@", "--data", "%/folder"), share=0.1),
    Reader("report", ("run", "**/*.[cjsy]*"), _command("report", "@", "--data", "%/folder"), share=0.05),
    Reader("train --resume", ("run", "**/*.[cy]*"), _command("train", "--resume", "@", "--quiet"), share=0.05),
    Reader("data check", ("folder", "**/*.*"), _command("data", "check", "@"), share=0.3),
)  # fmt: skip


# -- one trial -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """What came of one mutation: a word of `OUTCOMES`, and what is wrong."""

    reader: str
    seed: int
    word: str
    detail: str = ""


class _TooLongError(BaseException):
    """Past the time that a reader has."""


class _ForbiddenError(BaseException):
    """A program started, a connection opened, or a file written elsewhere."""


def trial(reader: Reader, pristine: Path, work: Path, seed: int, expected: Any) -> Outcome:
    """Damage one file of a copy of the corpus and read it."""
    rng = random.Random(f"{reader.name} {seed}")
    folder, pattern = reader.corpus
    shutil.rmtree(work, ignore_errors=True)
    root = work / folder
    shutil.copytree(pristine / folder, root)
    files = sorted(path for path in root.glob(pattern) if path.is_file())
    file = rng.choice(files)
    original = file.read_bytes()
    changed, remade = mutate(rng, original, [*(path.read_bytes() for path in files), *HOSTILE])
    file.write_bytes(changed)
    word, detail = "WRONG", ""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        found = reader.read(root, file)
        same = (
            not reader.checked or remade or changed in [path.read_bytes() for path in files if path != file]
        )
        word = "right" if same or found == expected else "WRONG"
        detail = "" if word == "right" else "other numbers, without a word"
    except AmbisegError as error:
        text = str(error)
        if "\n" in text.strip() or "bug in ambiseg" in text:
            detail = f"no sentence: {text}"
        elif file.name not in text and str(work) not in text:
            detail = f"names no file: {text}"
        else:
            word = "checksum" if reader.checked and _CHECKSUM.search(text) else "clear error"
    except _TooLongError:
        detail = f"more than {SECONDS} s"
    except (Exception, _ForbiddenError) as error:
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        where = f"{Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}" if place else ""
        detail = f"{type(error).__name__} at {where}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return Outcome(reader.name, seed, word, " ".join(detail.split())[:300])


def _guard(allowed: Path) -> None:
    """Make this process raise where it writes outside of a folder or starts something; bound its memory and time."""
    sys.dont_write_bytecode = True
    inside = (str(allowed), "/dev/null", "/proc/self")

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event in (
            "os.system",
            "subprocess.Popen",
            "os.exec",
            "os.posix_spawn",
            "os.fork",
            "socket.connect",
            "pickle.find_class",
        ):
            raise _ForbiddenError(f"{event} {args[:2]}")
        if event == "open":
            writes = isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            paths = args[:1] if writes else ()
        else:
            paths = (
                args[:2]
                if event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink")
                else ()
            )
        for path in paths:
            if isinstance(path, (str, bytes, os.PathLike)) and not os.path.abspath(
                os.fsdecode(path)
            ).startswith(inside):
                raise _ForbiddenError(f"{event} {path!r}")

    def late(*_: Any) -> None:
        raise _TooLongError

    os.environ["TMPDIR"] = str(allowed)
    os.chdir(allowed)
    signal.signal(signal.SIGPROF, late)
    sys.addaudithook(hook)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 4 * BYTES,) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def expected_of(reader: Reader, pristine: Path, work: Path) -> Any:
    """What a reader finds in the undamaged files; it must find something."""
    folder, pattern = reader.corpus
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(pristine / folder, work / folder)
    return reader.read(work / folder, sorted((work / folder).glob(pattern))[0])


def outcomes(reader: Reader, pristine: Path, work: Path, seeds: Sequence[int]) -> Iterator[Outcome]:
    """Outcomes of mutations, read in a process of its own; where that dies, a new one goes on.

    Args:
        reader: what reads.
        pristine: what `make_corpus` made, a folder with the name ``corpus``.
        work: a folder beside it, for copies.
        seeds: of the mutations.
    """
    at = 0
    while at < len(seeds):
        got, give = os.pipe()
        child = os.fork()
        if not child:
            os.close(got)
            _child(reader, pristine, work, seeds[at:], give)
        os.close(give)
        with open(got, "rb", buffering=0) as stream:
            rest = b""
            while at < len(seeds):
                ready = select.select([stream], [], [], 20 * SECONDS)[0]
                more = stream.read(1 << 16) if ready else b""
                if not more:
                    break
                *lines, rest = (rest + more).split(b"\n")
                for line in lines:
                    at += 1
                    yield Outcome(**json.loads(line))
        if at < len(seeds):
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        if at < len(seeds) and status != 256 * 75:
            yield Outcome(
                reader.name, seeds[at], "WRONG", f"the process ended with {os.waitstatus_to_exitcode(status)}"
            )
            at += 1


def _child(reader: Reader, pristine: Path, work: Path, seeds: Sequence[int], give: int) -> None:
    try:
        torch.set_num_threads(1)
        warnings.simplefilter("ignore")
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 2)
        work.mkdir(parents=True, exist_ok=True)
        expected = expected_of(reader, pristine, work / "w") if reader.checked else None
        _guard(work)
        started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for seed in seeds:
            found = trial(reader, pristine, work / "w", seed, expected)
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - started) << 10
            if grown > BYTES:
                found = Outcome(reader.name, seed, "WRONG", f"{grown >> 20} MiB of memory")
            os.write(give, json.dumps(found.__dict__).encode() + b"\n")
            if found.word == "WRONG":
                os._exit(75)
    finally:
        os._exit(1)


def seeds_of(reader: Reader, per_share: float, first: int) -> range:
    """Numbers of the mutations of a reader: at least one."""
    return range(first, first + max(1, math.ceil(per_share * reader.share)))


def make_corpus(folder: Path) -> Path:
    """All files that readers get, as they are before the damage."""
    folder.mkdir(parents=True, exist_ok=True)
    for make in corpus.PARTS:
        make(folder)
    return folder
