"""Runs in the layout of Hugging Face: a folder that is a model repository and, at the same time, a run folder.

::

    FOLDER/
      README.md            model card: licence, classes, figures, how to load it
      config.yaml  model.safetensors  filter.json  metrics.json    as in the run folder

`save` writes such a folder and needs no other package; `push` and `pull` send and fetch it with ``huggingface_hub``
(``pip install 'ambiseg[hub]'``). Nothing is sent or fetched unless they are called.
"""

from __future__ import annotations

import importlib
import math
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from ambiseg.atomic_write import replacing_folder, write_text
from ambiseg.engine.package import CONTENTS, write_parts
from ambiseg.engine.run import Run, load
from ambiseg.engine.run_folder import METRICS as METRICS_FILE
from ambiseg.errors import AmbisegError
from ambiseg.escaping import visible
from ambiseg.json_files import read_mapping
from ambiseg.methods import method_info
from ambiseg.metrics.registry import METRICS

CARD = "README.md"
PUSH, PULL = "push", "pull"
"""Verbs that the lists of such folders name."""
_SPDX = re.compile(r"[a-z0-9][a-z0-9.+-]*")


def save(run: Run, folder: Path, licence: str = "", overwrite: bool = False) -> None:
    """Write a run as a folder in the layout of Hugging Face.

    Args:
        run: a loaded run.
        folder: to make.
        licence: of the weights: an identifier such as ``cc-by-4.0``, or other words.
        overwrite: replace an earlier one.

    Raises:
        AmbisegError: a mixture, or a folder that must not be replaced.
    """
    with replacing_folder(folder, overwrite, PUSH, inputs=[run.folder] if run.folder else []) as partial:
        _write(run, partial, licence)


def push(run: Run, repository: str, licence: str = "", private: bool = True) -> str:
    """Upload a run to a model repository, which is made if it is not there; returns its address.

    Raises:
        AmbisegError: ``huggingface_hub`` is missing, or it refuses.
    """
    api = _hub().HfApi()
    with tempfile.TemporaryDirectory() as place, _hub_errors(repository):
        _write(run, Path(place), licence)
        address = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=place,
            allow_patterns=[CARD, *CONTENTS],
            commit_message=f"{run.config.method} of ambiseg {run.config.version}",
        )
    return str(address)


def pull(repository: str, folder: Path, revision: str | None = None, overwrite: bool = False) -> Run:
    """Download a run from a model repository into a folder, and load it.

    Only the files of the layout are fetched; a repository that holds no run leaves no folder.

    Raises:
        AmbisegError: ``huggingface_hub`` is missing, it refuses, or what it fetched is no run.
    """
    with _hub_errors(repository):
        fetched = Path(
            _hub().snapshot_download(repository, revision=revision, allow_patterns=[CARD, *CONTENTS])
        )
    load(fetched)
    with replacing_folder(folder, overwrite, PULL) as partial:
        for name in (CARD, *CONTENTS):
            if (fetched / name).is_file():
                shutil.copyfile(fetched / name, partial / name)
    return load(folder)


def _write(run: Run, folder: Path, licence: str) -> None:
    write_parts(run, folder)
    write_text(folder / CARD, model_card(run, licence, read_mapping(folder / METRICS_FILE)))


def model_card(run: Run, licence: str = "", figures: dict[str, Any] | None = None) -> str:
    """The README.md of a run: facts for the site between ``---``, then words and tables.

    Args:
        run: a loaded run.
        licence: of the weights.
        figures: what `ambiseg.evaluate` wrote.
    """
    config, spec, licence = run.config, method_info(run.config.method), visible(" ".join(licence.split()))
    facts: dict[str, Any] = {
        "library_name": "ambiseg",
        "pipeline_tag": "image-segmentation",
        "tags": ["ambiseg", config.method, "ambiguous-segmentation"],
    }
    if _SPDX.fullmatch(licence):
        facts["license"] = licence
    elif licence:
        facts |= {"license": "other", "license_name": licence}
    rows = {
        "method": config.method,
        "preset": config.preset,
        "classes": ", ".join(config.labels.names),
        "image channels": ", ".join(config.channels) or str(config.in_channels),
        "trained on": Path(config.data).name,
        "kept masks": "" if run.fitted is None else run.fitted.message,
        "licence": licence,
    }
    table = [f"| {name} | {_cell(value)} |" for name, value in rows.items() if value]
    parts = [
        "---\n" + yaml.safe_dump(facts, sort_keys=False, allow_unicode=True) + "---",
        f"# {config.method}: all plausible masks of an image",
        f"{spec.summary[:1].upper()}{spec.summary[1:]}. It predicts several masks for an image, each with its probability.",
        "\n".join(["| | |", "|---|---|", *table]),
        *_figures(figures or {}),
        "```python\nimport ambiseg\n\n"
        'run = ambiseg.load("FOLDER")  # this repository, downloaded\n'
        'found = run.predict("image.png")\n'
        "found.masks, found.weights\n```",
        *([f"```bibtex\n{spec.citation.strip()}\n```"] if spec.citation else []),
    ]
    return "\n\n".join(parts) + "\n"


def _figures(found: dict[str, Any]) -> list[str]:
    """A table of the figures that `METRICS` knows, with split and number of images; nothing where there are none."""
    columns = {name: found.get(name) for name in ("all", "kept")}
    values = {name: column for name, column in columns.items() if isinstance(column, dict)}
    rows = []
    for name, info in METRICS.items():
        row = [column.get(name) for column in values.values()]
        if any(isinstance(value, float) and math.isfinite(value) for value in row):
            texts = [f"{value:.4f}" if isinstance(value, float) else "" for value in row]
            rows.append(f"| {_cell(info.title)} | {' | '.join(texts)} |")
    if not rows:
        return []
    title = f"Measured on {_cell(str(found.get('images', '')))} images of the split {_cell(str(found.get('split', '')))}:"
    head = [
        f"| metric | {' | '.join(f'{name} masks' for name in values)} |",
        "|---" * (len(values) + 1) + "|",
    ]
    return [title, "\n".join([*head, *rows])]


def _cell(text: str) -> str:
    """Words of others for a cell of a Markdown table: no markup, no links, one line."""
    return re.sub(r"([\\`*_{}\[\]<>#|!~&])", r"\\\1", visible(text))


def _hub() -> Any:
    """The package huggingface_hub.

    Raises:
        AmbisegError: it is not installed.
    """
    try:
        return importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise AmbisegError(
            "this needs the package huggingface_hub, which is not installed: pip install 'ambiseg[hub]'"
        ) from error


@contextmanager
def _hub_errors(repository: str) -> Iterator[None]:
    """Whatever the hub objects to, as one sentence.

    Raises:
        AmbisegError: the hub cannot be reached, knows no such repository, or refuses.
    """
    try:
        yield
    except AmbisegError:
        raise
    except (OSError, ValueError) as error:  # its own errors are among them
        line = " ".join(str(error).split())[:200]
        raise AmbisegError(
            f"{repository}: the hub refuses or cannot be reached ({line}); check the name, the network and 'hf auth login'"
        ) from error
