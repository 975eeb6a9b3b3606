"""Anything in Kubernetes that has a scale: Deployments, StatefulSets, custom resources."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from scalepilot.config import checked
from scalepilot.operate.targets import TargetContext
from scalepilot.operate.targets.kubernetes.api import Api
from scalepilot.operate.targets.kubernetes.connection import connect
from scalepilot.operate.targets.kubernetes.settings import KubernetesSettings
from scalepilot.operate.targets.kubernetes.target import KubernetesTarget

_SETTINGS: TypeAdapter[KubernetesSettings] = TypeAdapter(KubernetesSettings)


def make(settings: Mapping[str, Any], context: TargetContext) -> KubernetesTarget:
    """The target of these settings. Nothing is asked of the cluster yet: one that is away for now must not end the process.

    Raises:
        ConfigError: a key or value that is not allowed, or no way to the cluster.
    """
    found = checked(KubernetesSettings, _SETTINGS, dict(settings), "target")
    return KubernetesTarget(found, context, Api(connect(found.kubeconfig, found.context)))


__all__ = ["KubernetesSettings", "KubernetesTarget", "make"]
