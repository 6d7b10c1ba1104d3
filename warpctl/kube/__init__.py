"""The API server, as plain dicts: requests with clear errors, lists and watches that do not hang. No warpctl object is known here.

Plain dicts rather than the client's generated models: they are smaller, keep unknown fields, and are what a renderer makes.
"""
