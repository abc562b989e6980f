"""The types of table.pyx: those of what its twin is used for."""

from .._python import table as _twin

Table = _twin.Table
