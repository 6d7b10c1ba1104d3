"""warpctl: a declarative pipeline engine for WARP (Weight Averaged Rewarded Policies, arXiv 2406.16768).

The floors, from the words at the bottom to the doors at the top, are drawn in CONTRIBUTING.md;
imports point down only, and import-linter checks it.
Nothing in this package is meant to be imported by users yet: the contract is the command line,
the WarpRun schema and the artifact store's layout v1.
"""

__version__ = "0.1.0"
