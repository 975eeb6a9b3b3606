"""Policies: one protocol, one artifact, whoever made it."""

from scalepilot.policy.artifact import (
    PackedPolicy,
    describe_env,
    find_policy_folder,
    load_policy,
    pack_policy,
    read_packed,
    read_spec,
    save_policy,
)
from scalepilot.policy.discretiser import Discretiser
from scalepilot.policy.fields import FieldView, check_same_fields, check_shown_fields, observation_row
from scalepilot.policy.network import NetworkPolicy
from scalepilot.policy.protocol import Decision, Planner, Policy, State, state_from_json, state_to_json
from scalepilot.policy.shipped import located, shipped_names, shipped_policies
from scalepilot.policy.shown import Shown
from scalepilot.policy.spec import (
    ActionEntry,
    ComponentEntry,
    DecisionRule,
    FieldEntry,
    PolicySpec,
    autoscale_fields,
    env_actions,
    env_components,
    env_fields,
    unmasked,
)
from scalepilot.policy.table import TablePolicy

__all__ = [
    "ActionEntry",
    "ComponentEntry",
    "Decision",
    "DecisionRule",
    "Discretiser",
    "FieldEntry",
    "FieldView",
    "NetworkPolicy",
    "PackedPolicy",
    "Planner",
    "Policy",
    "PolicySpec",
    "Shown",
    "State",
    "TablePolicy",
    "autoscale_fields",
    "check_same_fields",
    "check_shown_fields",
    "describe_env",
    "env_actions",
    "env_components",
    "env_fields",
    "find_policy_folder",
    "load_policy",
    "located",
    "observation_row",
    "pack_policy",
    "read_packed",
    "read_spec",
    "save_policy",
    "shipped_names",
    "shipped_policies",
    "state_from_json",
    "state_to_json",
    "unmasked",
]
