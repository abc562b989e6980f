"""What Python takes from the compiled dispatch.py, with the types of its source."""

from .._python import dispatch as _source

# An alias, not an import: stubtest does not look into a class that is imported.
Mode = _source.Mode
