"""The FastAPI application as a deployment with Ray's own settings: `python -m benchmarks.serve_rivals.stock_serve PORT`."""

from __future__ import annotations

import os
import signal
import sys
import threading

import ray
from ray import serve

from benchmarks.serve_rivals.app import make_app


def main() -> None:
    """Serve until SIGTERM."""
    stopped = threading.Event()
    folder = os.environ["RIVAL_RAY_FOLDER"]
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=folder)
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    serve.run(serve.deployment(serve.ingress(make_app)()).bind(), name="stock", route_prefix="/")
    stopped.wait()
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
