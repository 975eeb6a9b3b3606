"""`autoscaling_config.policy` of a Ray Serve deployment: decides as `scalepilot operate` does, in Serve's own controller."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scalepilot.operate.ray_serve.context import Context

_LOG = logging.getLogger("ray.serve")


class ScalepilotPolicy:
    """A policy of ours as one of Ray Serve.

    Serve calls it ten times a second. Once an interval of the policy it decides, within the limits; between two decisions it
    returns the same number. It never raises: where it fails, the replicas stay as they are, and Serve's log says so.

    Serve copies this class to its controller by value: everything else is imported there, when it is used.

    Args:
        policy: run or policy folder on the controller's node, or a rule such as `hpa:target=0.6`.
        service: of a rule: parameters of Autoscale-v0 that describe the service.
        limits: as `limits` of operate.yaml.
        fallback: rules that decide where the policy cannot, in order; None for the usual ones.
        assume: field → value that stands in where it is unknown.
        shadows: further policies or rules, whose decisions are written down.
        capacity_rps: requests/s one replica serves; None to learn it, from that of the policy.
        records: folder on the controller's node for the decisions; None for none.
    """

    def __init__(
        self,
        policy: str,
        service: Mapping[str, Any] | None = None,
        limits: Mapping[str, Any] | None = None,
        fallback: Sequence[str] | None = None,
        assume: Mapping[str, float] | None = None,
        shadows: Sequence[str] = (),
        capacity_rps: float | None = None,
        records: str | None = None,
    ) -> None:
        from pathlib import Path

        from scalepilot.operate.config import load_service, operate_config
        from scalepilot.operate.controller import Controller
        from scalepilot.operate.ledger import Ledger
        from scalepilot.operate.ray_serve.context import ContextTarget, ContextTelemetry
        from scalepilot.operate.telemetry import TelemetryContext

        values = {
            "policy": policy,
            "service": dict(service or {}),
            # Serve carries out what the policy returns, and nothing else scales the deployment: nobody contests it.
            "limits": {"takeover": True, **(limits or {})},
            **({} if fallback is None else {"fallback": list(fallback)}),
            "assume": dict(assume or {}),
            "shadows": list(shadows),
        }
        found = load_service(operate_config(values, "policy_kwargs"))
        self._target = ContextTarget()
        self._telemetry = ContextTelemetry(TelemetryContext(found.env, found.deciders.fields), capacity_rps)
        ledger = None if records is None else Ledger(Path(records))
        self._controller = Controller(found, self._telemetry, self._target, ledger)
        self._moment: int | None = None
        self._told = ""

    def __call__(self, ctx: Context) -> tuple[int, dict[str, Any]]:
        """The replicas to have. Serve's own delays and factors come after it: they should be 0 and 1."""
        try:
            now = time.time()
            self._target.see(ctx, now)
            moment = int(now // self._controller.interval)
            if moment != self._moment:
                self._moment = moment
                self._decide(ctx, now)
        except Exception:  # noqa: BLE001 - Serve's control loop is everybody's: whatever fails here must not end it
            _LOG.exception("scalepilot: no decision; the replicas stay")
            self._target.wanted = None
        wanted = self._target.wanted
        return (ctx.target_num_replicas if wanted is None else wanted), {}

    def _decide(self, ctx: Context, now: float) -> None:
        from scalepilot.operate.ledger import sentence

        self._warn(ctx.config)
        self._telemetry.see(ctx, now)
        self._target.wanted = None
        entry = self._controller.step()
        _LOG.info("scalepilot: %s", sentence(entry.record))

    def _warn(self, config: Any) -> None:
        """Say once what in the deployment's configuration works against the policy."""
        if config is None or self._told:
            return
        interval = self._controller.interval
        delays = [name for name in ("upscale_delay_s", "downscale_delay_s") if getattr(config, name, 0.0) > 0]
        found = [f"{name}: {getattr(config, name):g} delays each decision; allowed: 0" for name in delays]
        if getattr(config, "look_back_period_s", 0.0) > interval:
            found.append(f"look_back_period_s: {config.look_back_period_s:g} blurs the queue; allowed: up to {interval:g}")
        self._told = "; ".join(found) or "nothing"
        if found:
            _LOG.warning("scalepilot: autoscaling_config.%s", self._told)


__all__ = ["ScalepilotPolicy"]
