"""The maths of a merge: groups, task vectors, SLERP, LITI. Pure functions over numpy arrays; no I/O, never torch.

Shape suffixes: M = members (RL runs), N = elements of a block of weights, K = M + 1 (the init first, then the members).
Called by workers/merge.py, which brings the weights in and takes the results out. docs/merging.md explains the choices.
"""
