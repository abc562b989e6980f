"""The types of kernel.pyx: those of its twin; stubtest compares them with what is built."""

from .._python import kernel as _twin

name: str
build_info: dict[str, str]
LARGEST: int

def monotonic() -> float: ...
def get_ident() -> int: ...
def identity(thing: object) -> int: ...
def pollers() -> tuple[str, ...]: ...

# Aliases, not imports: stubtest does not look into a class that is imported.
Watched = _twin.Watched
Kernel = _twin.Kernel
