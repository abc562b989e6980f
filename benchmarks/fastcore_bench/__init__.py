"""The benchmark suite of fastcore: `python -m fastcore bench`.

It measures programs from outside, as processes of their own; nothing in fastcore imports it but
the command line.
"""
