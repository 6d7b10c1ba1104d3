"""Where imports read from: a folder, an object store, a web server, a model hub. Read-only, streamed, retried.

Nothing here knows what a model or a prompt set is, or where the bytes go.
"""
