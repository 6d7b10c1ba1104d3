"""Clients of the kubernetes package, opened and closed without a trace."""

from __future__ import annotations

import kubernetes


def close_client(client: kubernetes.client.ApiClient) -> None:
    """Close the sockets too, which ApiClient.close() leaves to the garbage collector."""
    client.close()
    client.rest_client.pool_manager.clear()
