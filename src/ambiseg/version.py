"""The version of the library, for packaging and run folders."""

__version__ = "0.1.0"
