"""The engine in C: the files of `fastcore._python`, compiled with the types of the .pxd files here.

Beside them stands what C alone can do: kernel.pyx over the pollers of src/, table.pyx, heap.pyx,
sockets.pyx, push.pyx, and channel.py on top of them, which is not compiled.
"""
