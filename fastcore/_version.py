"""The version, in the one place that names it (read by the build as text)."""

__version__ = "0.1.0"
