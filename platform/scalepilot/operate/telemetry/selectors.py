"""Which series a PromQL expression looks at: their samples have an age, an expression's value has none."""

from __future__ import annotations

import re

_TOKEN = re.compile(
    r"""(?P<text>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`)"""
    r"""|(?P<comment>\#[^\n]*)|(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)|(?P<number>[0-9][0-9a-zA-Z_.]*)|(?P<space>\s+)|(?P<other>.)""",
    re.DOTALL,
)
_LABEL_LISTS = frozenset(("by", "without", "on", "ignoring", "group_left", "group_right"))
_WORDS = _LABEL_LISTS | frozenset(("and", "or", "unless", "bool", "offset", "inf", "nan", "start", "end", "atan2"))


def selectors(expression: str) -> list[str]:
    """The vector selectors of an expression without ranges and offsets, each once, in order.

    Args:
        expression: PromQL; of one that is none, whatever looks like selectors.
    """
    tokens = [(found.lastgroup, found.group()) for found in _TOKEN.finditer(expression)]
    tokens = [token for token in tokens if token[0] not in ("space", "comment")]
    found: dict[str, None] = {}
    at = 0
    while at < len(tokens):
        kind, text = tokens[at]
        following = tokens[at + 1][1] if at + 1 < len(tokens) else ""
        if text == "[":
            # A range or a subquery.
            at = _closing(tokens, at, "]")
        elif kind == "name" and text.lower() in _LABEL_LISTS:
            at = _closing(tokens, at + 1, ")") if following == "(" else at + 1
        elif text == "{" or (kind == "name" and text.lower() not in _WORDS and following == "{"):
            end = _closing(tokens, at if text == "{" else at + 1, "}")
            found["".join(part for _, part in tokens[at:end])] = None
            at = end
        elif kind == "name" and text.lower() not in _WORDS and following not in ("(", "by", "without"):
            found[text] = None
            at += 1
        else:
            at += 1
    return list(found)


def _closing(tokens: list[tuple[str | None, str]], at: int, mark: str) -> int:
    """The place behind the next mark."""
    return next((i + 1 for i in range(at, len(tokens)) if tokens[i][1] == mark), len(tokens))


def joined(*selectors: str) -> str:
    """Label matchers as one list, with or without the braces and commas somebody wrote around them."""
    parts = (one.strip().removeprefix("{").removesuffix("}").strip().strip(",").strip() for one in selectors)
    return ",".join(part for part in parts if part)


__all__ = ["joined", "selectors"]
