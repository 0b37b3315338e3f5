"""Files of pretrained weights, and how an encoder takes them over. No file is read that could run code."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ambiseg.errors import AmbisegError
from ambiseg.networks.foreign.channels import adapted_weight, first_convolution, rule

PYTORCH = (".bin", ".pt", ".pth", ".ckpt")
"""Endings of files of PyTorch, which are read with ``weights_only=True``."""
NESTED = ("state_dict", "model_state_dict", "model", "teacher", "student", "encoder")
"""Where checkpoints of PyTorch keep their tensors."""
LARGEST_FILE = 32 * 2**30
"""Most bytes of a file of weights, unpacked."""
LEAST_SHARE = 0.5
"""Least share of the tensors of an encoder that its file must have."""


def read_file(path: Path) -> dict[str, Tensor]:
    """Tensors of a file of safetensors or of PyTorch by their names.

    Raises:
        AmbisegError: it is too large, damaged, or holds something else than tensors.
    """
    size = path.stat().st_size
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as file:
            size = max(size, sum(entry.file_size for entry in file.infolist()))
    if size > LARGEST_FILE:
        raise AmbisegError(
            f"{path} has {size / 2**30:.0f} GiB, more than the {LARGEST_FILE / 2**30:.0f} GiB that weights of an encoder"
            " may have: give a file with the encoder alone"
        )
    if path.suffix == ".safetensors":
        try:
            return dict(load_file(path))
        except (SafetensorError, OSError, ValueError) as error:
            raise AmbisegError(f"{path} is no safetensors file ({error}): restore it") from error
    if path.suffix not in PYTORCH:
        raise AmbisegError(
            f"{path}: weights are a file that ends in .safetensors, {', '.join(PYTORCH)}, or a folder: convert it"
        )
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        first = next(iter(str(error).strip().splitlines()), "")
        raise AmbisegError(
            f"{path} is damaged or holds more than tensors ({type(error).__name__}: {first:.120}): convert it to safetensors"
        ) from error
    for key in NESTED:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    tensors = {k: v for k, v in found.items() if isinstance(v, Tensor)} if isinstance(found, Mapping) else {}
    if not tensors:
        raise AmbisegError(f"{path} holds no tensors by names: give a state_dict, best as safetensors")
    return tensors


@torch.no_grad()
def taken_over(encoder: nn.Module, state: Mapping[str, Tensor], kind: str, source: str, whole: bool) -> str:
    """Copy tensors into an encoder; names may have another beginning than its own, and further ones are left.

    Args:
        encoder: of an `EncoderBackbone`.
        state: tensors by names.
        kind: what to call the encoder.
        source: where they come from.
        whole: whether all of the encoder must be there.

    Returns:
        What was done, in one sentence.

    Raises:
        AmbisegError: too few of its tensors are there, or they have other shapes.
    """
    own, conv = encoder.state_dict(), f"{first_convolution(encoder, kind)[0]}.weight"
    ours, theirs = _beginnings(list(own), list(state))
    missing, notes, values = [], [], {}
    for name, target in own.items():
        value = state.get(theirs + name.removeprefix(ours)) if name.startswith(ours) else None
        if value is None:
            missing.append(name.removeprefix(ours))
            continue
        if name == conv and value.dim() == 4 and value.shape[1] != target.shape[1]:
            notes.append(
                f"its first convolution was fitted from {value.shape[1]} to {target.shape[1]} channel(s),"
                f" {rule(value.shape[1], target.shape[1])}"
            )
            value = adapted_weight(value.float(), target.shape[1])
        if value.shape != target.shape:
            raise AmbisegError(
                f"the weights of {source} do not fit {kind}: {name.removeprefix(ours)} has shape {tuple(value.shape)},"
                f" expected {tuple(target.shape)}; give backbone.encoder.options of these weights"
            )
        values[name] = value.to(target.dtype)
    if len(values) < (1.0 if whole else LEAST_SHARE) * len(own):
        raise AmbisegError(
            f"{source} has {len(values)} of the {len(own)} tensors of {kind}, not {', '.join(missing[:3])}: give weights of"
            " this network"
        )
    encoder.load_state_dict(values, strict=False)
    if missing:
        notes.append(
            f"{len(missing)} of {len(own)} tensors are not there and begin at random ({missing[0]}, ...)"
        )
    return f"{kind} has the weights of {source}" + "".join(f"; {note}" for note in notes)


def _beginnings(own: list[str], theirs: list[str]) -> tuple[str, str]:
    """The beginnings of names, ours and theirs, without which most names agree."""
    known = set(theirs)
    best = (0, "", "")
    for ours in dict.fromkeys(("", *(name[: name.index(".") + 1] for name in own if "." in name))):
        tails = [name.removeprefix(ours) for name in own if name.startswith(ours)]
        probes = tails[:: max(1, len(tails) // 8)]
        starts = {name[: -len(tail)] for tail in probes for name in theirs if name.endswith(tail)} | {""}
        for start in starts:
            hits = sum(start + tail in known for tail in tails)
            best = max(best, (hits, ours, start), key=lambda one: one[0])
    return best[1], best[2]
