"""The door: one command a file, and what they share about terminals and state folders.

Modules here import nothing heavy at their top, so that `warpctl --help` is instant: no torch, pydantic, fsspec or numpy.
Results go to stdout, everything else to stderr. Nothing is decided here: commands ask the engine and show what it says.
"""
