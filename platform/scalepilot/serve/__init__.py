"""Policies over HTTP: stateless, named fields, errors that say what to send instead. Ray is in `scalepilot.serve.app` alone."""

from scalepilot.serve.catalogue.served import ServedPolicy
from scalepilot.serve.catalogue.store import Catalogue, PolicyStore
from scalepilot.serve.config import ServeConfig, load_serve_config, serve_config
from scalepilot.serve.decide.fast import MAX_OBSERVATIONS
from scalepilot.serve.http.asgi import PolicyApi
from scalepilot.serve.http.errors import RequestError

__all__ = [
    "MAX_OBSERVATIONS",
    "Catalogue",
    "PolicyApi",
    "PolicyStore",
    "RequestError",
    "ServeConfig",
    "ServedPolicy",
    "load_serve_config",
    "serve_config",
]
