"""The version of the library, for packaging and run folders."""

__version__ = "0.1.0"


def written_by(version: object) -> str:
    """Which version wrote a file whose settings are not known, and where the new names are."""
    return (
        f"ambiseg {version or 'of unknown version'} wrote it, this is {__version__}:"
        " where a setting has another name now, CHANGELOG.md says which"
    )
