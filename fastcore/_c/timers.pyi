"""What Python takes from the compiled timers.py, with the types of its source."""

from .._python import timers as _source

# An alias, not an import: stubtest does not look into a class that is imported.
Handle = _source.Handle
