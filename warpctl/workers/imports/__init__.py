"""What an import takes from a source, how it is checked, and how it gets into the store.

Bytes come from workers/sources; nothing here knows what kind of place that is.
"""
