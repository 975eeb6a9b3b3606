"""Plain YAML only: no tags, no aliases, no duplicate keys, and limits on size, count and depth."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import yaml
from yaml.composer import Composer
from yaml.constructor import SafeConstructor
from yaml.resolver import Resolver

from scalepilot.errors import ConfigError
from scalepilot.files.stored import is_text

MAX_YAML_CHARACTERS = 1_000_000
_MAX_YAML_NODES, _MAX_YAML_DEPTH = 10_000, 20


# libyaml reads a run's configuration in a fifth of the time.
_Events = yaml.CLoader if yaml.__with_libyaml__ else yaml.Loader


class _Loader(Composer, SafeConstructor, Resolver):
    """SafeLoader that counts nodes, refuses duplicate keys and aliases, and reads 1e-3 as a number."""

    nodes = depth = 0

    def __init__(self, text: str) -> None:
        for base in (Composer, SafeConstructor, Resolver):
            base.__init__(self)
        events: Any = _Events(text)
        # What the composer asks for.
        self.check_event, self.get_event, self.dispose = events.check_event, events.get_event, events.dispose
        self.peek_event: Callable[[], Any] = events.peek_event

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.nodes += 1
        mark = self.peek_event().start_mark
        if self.nodes > _MAX_YAML_NODES:
            raise yaml.MarkedYAMLError(problem=f"more than {_MAX_YAML_NODES} values", problem_mark=mark)
        if getattr(self.peek_event(), "tag", None) is not None:
            raise yaml.MarkedYAMLError(problem="tags (!name) are not allowed", problem_mark=mark)
        if not is_text(getattr(self.peek_event(), "value", "")):
            raise yaml.MarkedYAMLError(problem="NUL and lone surrogates are not allowed", problem_mark=mark)
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="aliases (*name) are not allowed", problem_mark=mark)
        if self.depth >= _MAX_YAML_DEPTH:
            raise yaml.MarkedYAMLError(problem=f"nested more than {_MAX_YAML_DEPTH} deep", problem_mark=mark)
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key is a list or a mapping", problem_mark=key.start_mark)
            if key.tag != "tag:yaml.org,2002:str" and key.tag != "tag:yaml.org,2002:merge":
                problem = f"key {key.value!r} is read as {key.tag.rpartition(':')[2]}, write it in quotes"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key.value!r} is given twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


# Plain data has no dates: 2026-01-01 is a string, and wrong where a number or a mapping belongs.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}
# YAML 1.1 reads 1e-3 as a string; everyone who writes it means a number.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+$"), list("-+0123456789.")
)


def parse_yaml(text: str, source: str) -> Any:
    """Parse YAML without tags, aliases or duplicate keys.

    Raises:
        ConfigError: with line and reason.
    """
    if len(text) > MAX_YAML_CHARACTERS:
        raise ConfigError(f"{source}: {len(text)} characters; allowed: up to {MAX_YAML_CHARACTERS}")
    loader = None
    try:
        loader = _Loader(text)
        return loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(
            f"{source}{line}: {error.problem or error.context}; allowed: plain YAML without tags and aliases"
        ) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"{source}: not plain YAML ({str(error).splitlines()[0][:120]})") from None
    finally:
        if loader is not None:
            loader.dispose()
