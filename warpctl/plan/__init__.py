"""The thinker: which stages a run has, under which keys, and what to do next. Pure: no I/O, no clock, no randomness.

`stages(run, imported)` is the graph, `judge` the one truth table, `plan(run, observed, now)` the decision,
`summarise(run, observed, now)` the same facts as words. Only an executor acts on what is decided here.
"""
