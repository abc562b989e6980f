"""The types of the C engine: those of the Python one; stubtest compares them with what is built."""

from . import _engine_py
from ._engine_c_parts import Channel as Channel
from ._sockets_c import DISCONNECTED as DISCONNECTED

# Aliases, not imports: stubtest does not look into a class that is imported.
Engine = _engine_py.Engine
Handle = _engine_py.Handle

def pollers() -> tuple[str, ...]: ...

name: str
build_info: dict[str, str]

EXHAUSTED: frozenset[int]
SWEEP_SHARE: int
SWEEP_PAUSE: float
SWEEP_ALWAYS: int
QUIET: float
LOOK_EVERY: int
LOOK_SHARE: int
STEP_ASIDE: float
