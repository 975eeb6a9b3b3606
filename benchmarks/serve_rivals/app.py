"""A policy behind FastAPI with torch: the same network, the same fields, the same kind of answer.

It checks less than we do (names and numbers, no ranges), and has neither keys nor metrics.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import torch
from fastapi import FastAPI
from pydantic import BaseModel


class Request(BaseModel):
    """One observation by field name."""

    observation: dict[str, float]


class Answer(BaseModel):
    """What to do, and how sure the network is."""

    action: int
    move: str
    desired_replicas: int
    probabilities: dict[str, float]


def make_app() -> FastAPI:
    """The service, for uvicorn's `--factory` and Serve's builder; RIVAL_FOLDER holds weights.npz and policy.json."""
    torch.set_num_threads(1)
    folder = Path(os.environ["RIVAL_FOLDER"])
    about = json.loads((folder / "policy.json").read_text(encoding="utf-8"))
    names, actions = about["names"], about["actions"]
    labels = [action["label"] for action in actions]
    replicas = [i for i, name in enumerate(names) if name.startswith(("ready_replicas", "starting_replicas"))]
    model, app = _network(folder / "weights.npz"), FastAPI()

    @app.post("/decide")
    async def decide(request: Request) -> Answer:
        row = [request.observation[name] for name in names]
        with torch.inference_mode():
            odds = torch.softmax(model(torch.tensor([row])), dim=1)[0]
        chosen = int(odds.argmax())
        total, move = sum(row[i] for i in replicas), actions[chosen]
        desired = total + (move["size"] if move["kind"] == "absolute" else round(move["size"] * total))
        return Answer(
            action=chosen,
            move=labels[chosen],
            desired_replicas=min(max(int(desired), 1), 60),
            probabilities=dict(zip(labels, odds.tolist(), strict=True)),
        )

    @app.get("/health/ready")
    async def ready() -> dict[str, str]:
        return {"status": "ready"}

    return app


def _network(weights: Path) -> torch.nn.Module:
    arrays = np.load(weights)
    layers: list[torch.nn.Module] = []
    for i in range(3):
        weight, bias = arrays[f"weight_{i}"], arrays[f"bias_{i}"]
        layer = torch.nn.Linear(*weight.shape)
        with torch.no_grad():
            layer.weight.copy_(torch.from_numpy(weight.T))
            layer.bias.copy_(torch.from_numpy(bias))
        layers += [layer] if i == 2 else [layer, torch.nn.Tanh()]
    return torch.nn.Sequential(*layers)
