"""What Python takes from the compiled engine.py, with the types of its source."""

from .._python import engine as _source

# An alias, not an import: stubtest does not look into a class that is imported.
Engine = _source.Engine
