"""A folder in the layout of Hugging Face is a run folder with a model card; the hub itself is replaced here."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
import torch
import yaml

import ambiseg
from ambiseg import hub
from ambiseg.engine.package import CONTENTS
from ambiseg.errors import AmbisegError
from ambiseg.labels import LabelSpace


@pytest.fixture(scope="module")
def folder(tiny_run, tmp_path_factory):
    """A saved folder of a run with figures."""
    place = tmp_path_factory.mktemp("hub")
    shutil.copytree(tiny_run, place / "run")
    figures = {"split": "test", "images": 5, "all": {"ged": 0.25}, "kept": {"ged": 0.125}}
    (place / "run" / "metrics.json").write_text(json.dumps(figures))
    hub.save(ambiseg.load(place / "run", device="cpu"), place / "saved", "cc-by-4.0")
    return place / "saved"


class Offline:
    """What `ambiseg.hub` uses of ``huggingface_hub``, with a folder in place of the site."""

    def __init__(self, site):
        self.site, self.made = site, []

    def HfApi(self):  # noqa: N802
        return self

    def create_repo(self, repository, private, exist_ok):
        self.made.append((repository, private))
        return f"https://hub/{repository}"

    def upload_folder(self, repo_id, folder_path, allow_patterns, commit_message):
        shutil.copytree(folder_path, self.site / repo_id)

    def snapshot_download(self, repository, revision, allow_patterns):
        if not (self.site / repository).exists():
            raise OSError(f"404: {repository}")
        return str(self.site / repository)


@pytest.fixture
def offline(monkeypatch, tmp_path):
    site = Offline(tmp_path / "site")
    monkeypatch.setattr(hub, "_hub", lambda: site)
    return site


def test_the_folder_is_a_run_with_a_card(folder, tiny_run):
    assert ambiseg.load(folder, device="cpu").digest() == ambiseg.load(tiny_run, device="cpu").digest()
    _, facts, text = (folder / "README.md").read_text().split("---\n", 2)
    facts = yaml.safe_load(facts)
    assert facts["license"] == "cc-by-4.0" and facts["library_name"] == "ambiseg"
    assert facts["pipeline_tag"] == "image-segmentation"
    assert "| GED² | 0.2500 | 0.1250 |" in text and "5 images of the split test" in text


def test_what_is_pushed_is_pulled(folder, offline, tmp_path):
    run = ambiseg.load(folder, device="cpu")
    assert hub.push(run, "somebody/fires", "cc-by-4.0") == "https://hub/somebody/fires"
    assert offline.made == [("somebody/fires", True)]
    (offline.site / "somebody/fires/payload.py").write_text("raise SystemExit")
    found = hub.pull("somebody/fires", tmp_path / "here")
    image = torch.zeros(run.config.in_channels, 16, 16).numpy()
    assert torch.equal(found.predict(image).masks, run.predict(image).masks)
    names = {path.name for path in (tmp_path / "here").iterdir()}
    assert names <= {*CONTENTS, "README.md", ".ambiseg-files"} and "model.safetensors" in names
    with pytest.raises(AmbisegError, match="exists"):
        hub.pull("somebody/fires", tmp_path / "here")
    hub.pull("somebody/fires", tmp_path / "here", overwrite=True)


def test_a_repository_without_a_run_leaves_no_folder(offline, tmp_path):
    (offline.site / "other").mkdir(parents=True)
    with pytest.raises(AmbisegError, match="not a run folder"):
        hub.pull("other", tmp_path / "here")
    with pytest.raises(AmbisegError, match="^missing: the hub refuses or cannot be reached"):
        hub.pull("missing", tmp_path / "here")
    assert not (tmp_path / "here").exists()


def test_names_of_strangers_are_no_markup(folder):
    run = ambiseg.load(folder, device="cpu")
    object.__setattr__(run.config, "labels", LabelSpace(("sky", "<b>|[x](http://y)\n# title")))
    card = hub.model_card(run, "words: of <their> own\n---\n")
    assert "<b>" not in card and "[x](" not in card and "\n# title" not in card
    facts = yaml.safe_load(card.split("---\n")[1])
    assert facts["license"] == "other" and facts["license_name"] == "words: of <their> own ---"


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(AmbisegError, match=r"pip install 'ambiseg\[hub\]'"):
        hub.pull("a/b", tmp_path / "here")
