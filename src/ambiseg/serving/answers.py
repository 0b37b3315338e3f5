"""Answers: masks as PNG or run lengths in JSON, or a zip of the files that `ambiseg predict` writes."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ambiseg.data.files.reading import mask_png
from ambiseg.engine.predict import mask_entries
from ambiseg.exchange.runs import run_lengths
from ambiseg.labels import LabelSpace
from ambiseg.serving.model import Found, Served, Task

Format = Literal["png", "rle", "zip"]
FORMATS: tuple[Format, ...] = get_args(Format)
JSON, ZIP = "application/json", "application/zip"


def render(served: Served, task: Task, found: Found, form: Format, **more: Any) -> tuple[bytes, str]:
    """The answer to a request, and its media type.

    Args:
        served: the run.
        task: what was asked.
        found: its masks.
        form: ``png`` and ``rle`` are JSON.
        more: entries that come first, such as the id of the request.
    """
    masks, flow = found.masks, served.flow
    estimate = task.settings.estimate.record(flow)
    if flow is not None and flow.folder is not None:
        estimate["flow"] = flow.folder.name
    files: dict[str, bytes] = {}
    entries = mask_entries(masks, [f"mask-{k + 1:02}.png" for k in range(int(masks.count[0]))])
    for entry, mask in zip(entries, masks.masks[0].numpy(), strict=False):
        if form == "rle":
            entry["rle"] = class_runs(mask, masks.labels)
        else:
            files[entry["file"]] = mask_png(mask, masks.labels.colors)
        if form == "png":
            entry["png"] = base64.b64encode(files[entry["file"]]).decode("ascii")
        if form != "zip":
            del entry["file"]
    content = {
        **more,
        "size": list(task.image.shape[1:]),
        "classes": list(masks.labels.names),
        "masks": entries,
        "settings": task.settings.record(),
        "estimate": {**estimate, "determined": found.determined},
        "seed": task.seed,
    }
    text = json.dumps(content, allow_nan=False).encode("ascii")
    if form != "zip":
        return text, JSON
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in {"prediction.json": text, **files}.items():
            archive.writestr(name, data)
    return stream.getvalue(), ZIP


def class_runs(mask: NDArray[np.uint8], labels: LabelSpace) -> list[dict[str, Any]]:
    """Run lengths of the classes of a label map ``(H, W)``, as COCO writes them uncompressed.

    There is an entry for each class that occurs; of two classes, for the foreground only. ``counts`` are lengths of
    pixels outside and inside by turns, down the columns, from the first column to the last.

    Example:
        >>> class_runs(np.array([[0, 1, 1], [0, 0, 1]], np.uint8), LabelSpace.binary())
        [{'class': 1, 'name': 'foreground', 'size': [2, 3], 'counts': [2, 1, 1, 2]}]
    """
    classes = [1] if labels.is_binary else np.unique(mask).tolist()
    counts = {c: run_lengths((mask == c).ravel(order="F")).tolist() for c in classes}
    return [
        {"class": c, "name": labels.names[c], "size": list(mask.shape), "counts": counts[c]} for c in classes
    ]
