"""The version of moesim, for results and the package's metadata."""

__version__ = "0.1.0"
