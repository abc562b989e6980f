"""What Python takes from the compiled lines.py, with the types of its source."""

from .._python import lines as _source

# Aliases, not imports: stubtest does not look into a class that is imported.
Burst = _source.Burst
Rest = _source.Rest
