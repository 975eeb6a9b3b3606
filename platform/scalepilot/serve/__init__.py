"""Policies over HTTP: stateless, named fields, errors that say what to send instead. Ray is in `scalepilot.serve.app` alone."""

from scalepilot.serve.asgi import MAX_BODY_BYTES, PolicyApi
from scalepilot.serve.errors import RequestError
from scalepilot.serve.schema import MAX_OBSERVATIONS
from scalepilot.serve.store import PolicyStore, ServedPolicy

__all__ = ["MAX_BODY_BYTES", "MAX_OBSERVATIONS", "PolicyApi", "PolicyStore", "RequestError", "ServedPolicy"]
