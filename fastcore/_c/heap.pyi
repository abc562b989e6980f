"""The types of heap.pyx: those of its twin."""

from .._python import heap as _twin

Timed = _twin.Timed
Heap = _twin.Heap
