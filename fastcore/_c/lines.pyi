"""What Python takes from the compiled lines.py, with the types of its source."""

from .._python import lines as _source

# An alias, not an import: stubtest does not look into a class that is imported.
Received = _source.Received
