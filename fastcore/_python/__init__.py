"""The engine in Python, which is also the source of the one in C.

The files here run as they are; `fastcore._c` has them compiled, with the types in its .pxd files.
They import one another by relative names only, which mean the sibling in either package.  What C
has to do in its own way is written twice: kernel.py and channel.py, each with a twin in `_c`.
"""
