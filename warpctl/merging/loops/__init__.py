"""The merge's inner loops, in Python that numba compiles. Nothing but compile.py imports them: numba takes half a second."""
