"""A replica without Ray: `python -m tests.door_server PORT WAY CONFIG_JSON POLICY…`; WAY is haproxy (in front) or plain."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import uvicorn

from scalepilot.serve import PolicyApi, PolicyStore, serve_config
from scalepilot.serve.http.keys import ApiKeys
from scalepilot.serve.ingress.direct import install_protocol
from scalepilot.serve.ingress.door import Door


def main(port: int, way: str, config_json: str, policies: list[str]) -> None:
    config = serve_config(json.loads(config_json))
    keys = None if config.api_key_file is None else ApiKeys(Path(config.api_key_file))
    api = PolicyApi(PolicyStore.load(policies), config, keys=keys)

    async def serves(scope: Any, receive: Any, send: Any) -> None:
        # As Serve does, for HAProxy's health checks.
        if scope["type"] == "http" and scope["path"] == "/-/healthz":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
        else:
            await api(scope, receive, send)

    install_protocol(config.limits.request_seconds)
    app = Door(serves, config, keys) if way == "plain" else serves
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="critical", lifespan="off", timeout_keep_alive=75)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:])
