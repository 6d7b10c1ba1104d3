"""From a stage to Kubernetes objects: pure functions, plain dicts, no client, no clock. Names and labels come from names.py."""
