"""The benchmark suite, installed as fastcore._bench: `python -m fastcore bench`.

It measures programs from outside, as processes of their own; nothing in fastcore imports it but
the command line.
"""
