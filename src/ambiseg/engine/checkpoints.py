"""Checkpoints to go on from: written whole or not at all, read without executing anything in them.

A checkpoint is the zip archive of `torch.save`, whose parts carry checksums; they are compared before it is used, and
before a new checkpoint takes the place of the one before.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from ambiseg.atomic_write import replacing_file
from ambiseg.errors import AmbisegError


class AtomicCheckpoints(TorchCheckpointIO):
    """Lightning's way to checkpoint files, beside the target and by a rename instead of through the temporary folder,
    which may be on another disk."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint; the one before stays until the new one has been read back."""
        with replacing_file(Path(path)) as partial:
            with open(partial, "wb") as partial_file:
                try:
                    torch.save(checkpoint, partial_file)
                except RuntimeError as error:
                    raise error.__context__ if isinstance(error.__context__, OSError) else error from None
            problem = damage(partial)
            if problem:
                raise AmbisegError(
                    f"{path}: the new checkpoint does not read back ({problem}), the one before is kept: check the disk"
                )

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read plain tensors, without executing anything."""
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return found


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a training checkpoint without executing anything in it.

    Raises:
        AmbisegError: no such file, damaged, or not a checkpoint of plain tensors.
    """
    if not path.is_file():
        raise AmbisegError(f"{path} does not exist: there is nothing to resume; train without --resume")
    problem = damage(path)
    if not problem:
        try:
            checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            problem = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        else:
            if isinstance(checkpoint, dict) and _is_ours(checkpoint):
                for part in ("state_dict", "current_model_state", "optimizer_states"):
                    check_finite(dict(_tensors(checkpoint.get(part), part)), path)
                return checkpoint
            problem = "it does not say that ambiseg wrote it"
    raise AmbisegError(
        f"{path} is not a checkpoint of ambiseg ({problem}): restore it, or train without --resume"
    )


def _is_ours(checkpoint: Mapping[str, Any]) -> bool:
    """Whether it says how far the training was, and which method wrote it."""
    step, wrote = checkpoint.get("global_step"), checkpoint.get("ambiseg")
    return (
        type(step) is int and step >= 0 and isinstance(wrote, dict) and isinstance(wrote.get("method"), str)
    )


def _tensors(value: Any, name: str) -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors inside of a value, with their places."""
    if isinstance(value, torch.Tensor):
        yield name, value
    items = (
        value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, inner in items:
        yield from _tensors(inner, f"{name}: {key}")


def check_finite(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    """Refuse weights that are NaN or infinite.

    Raises:
        AmbisegError: with the name of the first of them.
    """
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(value.isfinite().all()):
            raise AmbisegError(
                f"{path} holds weights that are NaN or infinite ({name!r}): restore the file, or train again with a"
                " lower --lr"
            )


def damage(path: Path) -> str:
    """What is wrong with an archive of `torch.save`: empty where every part has its checksum.

    Nothing is unpacked: parts that are compressed, which `torch.save` never makes, are refused.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
                return "parts of it are compressed"
            if sum(part.file_size for part in parts) > path.stat().st_size:
                return "its parts are larger than the file"
            broken = archive.testzip()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError, EOFError) as error:
        return " ".join(str(error).split()) or type(error).__name__
    return f"the part {broken!r} has another checksum" if broken else ""
