"""Show masks with their probabilities in napari: python show.py IMAGE.npz ..."""

import json
import sys
from typing import Any

import numpy as np


def show(viewer: Any, path: str) -> None:
    """Add the layers of a file to a viewer."""
    with np.load(path, allow_pickle=False) as stored:
        for i, layer in enumerate(json.loads(str(stored["layers"]))):
            add = viewer.add_image if layer["kind"] == "image" else viewer.add_labels
            add(stored[f"layer-{i}"], **layer["options"])


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    import napari

    window = napari.Viewer()
    for name in sys.argv[1:]:
        show(window, name)
    napari.run()
