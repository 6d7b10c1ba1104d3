"""The hands: whoever performs attempts. The planner decides, an executor acts and tells what it sees.

`base` is the Protocol, `local` runs worker processes on this machine. Both know how to start, stop and observe attempts,
and nothing about why.
"""
