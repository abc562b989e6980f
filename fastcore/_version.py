"""The version, in the one place of the package that names it (read by the build as text)."""

__version__ = "0.1.0"
