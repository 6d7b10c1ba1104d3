"""The controller: drives every WarpRun of a cluster (or of one namespace) with the same engine as `warpctl run`.

Level-triggered: a run's key in a queue, one pass at a time, everything decided from lists and commit markers. Whatever it remembers
between passes only spares requests; killed at any instant, its successor goes on from what is published.
"""
