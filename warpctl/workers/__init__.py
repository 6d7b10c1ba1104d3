"""The worker programs: each reads one StageInput, reads its input artifacts, publishes one artifact, leaves.

A worker knows neither Kubernetes nor the planner, and runs the same on a laptop and in a pod.
import, merge and report run without torch; rl and evaluate are torch.
"""
