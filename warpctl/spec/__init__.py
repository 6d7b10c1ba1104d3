"""The words: what a user writes, what a worker is told, what a status says.

Only data and its validation live here: no I/O beyond reading a YAML text, no clock, no cluster.
Everybody may import it; it imports `errors` alone.
"""
