"""``ambiseg push`` and ``ambiseg pull``: runs in the layout of Hugging Face."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from ambiseg.cli.console import command, next_commands, show
from ambiseg.cli.parsing import parse
from ambiseg.errors import AmbisegError


@dataclass(frozen=True)
class PushArguments:
    """Upload a run to Hugging Face, or write the folder that would be uploaded.

    It holds the weights, the configuration, the filter, the figures and a model card."""

    run: Positional[Path]
    """Run folder that 'ambiseg train' wrote."""
    repository: Positional[str] = ""
    """Model repository, such as 'name/fires'; it is made if it is not there."""
    folder: Path | None = None
    """Write this folder and upload nothing."""
    license: str = ""
    """Licence of the weights: an identifier such as 'cc-by-4.0', or other words."""
    public: bool = False
    """Make a new repository public."""
    overwrite: bool = False
    """Replace an earlier --folder."""


@dataclass(frozen=True)
class PullArguments:
    """Download a run from Hugging Face; the folder can be used as any run."""

    repository: Positional[str]
    """Model repository, such as 'name/fires'."""
    out: Path
    """Folder to make."""
    revision: str | None = None
    """Branch, tag or commit; the main branch if left out."""
    overwrite: bool = False
    """Replace an earlier download."""


def push(args: list[str]) -> int:
    """Write or upload."""
    arguments = parse(PushArguments, args, "ambiseg push")
    if bool(arguments.repository) == (arguments.folder is not None):
        raise AmbisegError("ambiseg push takes a repository to upload to, or --folder to write, and not both")
    from ambiseg import hub
    from ambiseg.engine.run import load

    model = load(arguments.run)
    if arguments.folder is None:
        address = hub.push(model, arguments.repository, arguments.license, not arguments.public)
        show(f"uploaded to {address}")
        return 0
    hub.save(model, arguments.folder, arguments.license, arguments.overwrite)
    show(f"written: {arguments.folder}, with its model card README.md")
    next_commands((command("ambiseg", "push", arguments.run, "NAME/MODEL"), "upload it"))
    return 0


def pull(args: list[str]) -> int:
    """Download, load and say what it is."""
    arguments = parse(PullArguments, args, "ambiseg pull")
    from ambiseg import hub

    run = hub.pull(arguments.repository, arguments.out, arguments.revision, arguments.overwrite)
    show(f"{run.config.method} in {arguments.out}")
    next_commands((f"{command('ambiseg', 'predict', arguments.out)} IMAGE... --out DIR", "use it"))
    return 0
