"""The artifact store: bytes in, bytes out, and who was first.

What lives here: the Store over any fsspec URI, create_once per backend, manifests, publishing, reading with verification,
tensors and checkpoints, garbage collection.
What may not: torch, the planner, Kubernetes, knowledge of what a stage computes.
Called by workers, executors, engine and cli.
"""
