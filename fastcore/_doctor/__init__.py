"""`python -m fastcore doctor`: reads programs, and says what becomes of them on fastcore.

It needs libcst and rich, the extra `fastcore-loop[doctor]`, and is loaded by that command alone.
It runs nothing of what it reads, and knows nothing of engines and loops.
"""
