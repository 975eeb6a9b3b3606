"""A policy inside Ray Serve's own controller: its autoscaler asks ours, and the deployment's replicas count their requests."""

from __future__ import annotations

from scalepilot.operate.ray_serve.counting import Counted
from scalepilot.operate.ray_serve.policy import ScalepilotPolicy

__all__ = ["Counted", "ScalepilotPolicy"]
