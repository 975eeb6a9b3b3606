"""What a request can do wrong, as an HTTP status and one line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scalepilot.errors import InputError

# Keys and types of the body that every error has.
ERROR = {
    "error": str,
    "problems?": [
        {
            "field": str,
            "problem": str,
            "unit": (Any, "Of the field; null if it is not an observation field"),
            "low": (Any, "Smallest value allowed, or null"),
            "high": (Any, "Largest value allowed, or null"),
            "index?": (int, "Index of the observation in a list"),
        }
    ],
}


class RequestError(InputError):
    """A request that is not answered with a 200.

    Args:
        status: HTTP status code.
        message: one line: field, value, what is allowed.
        problems: one entry a field, as in `ERROR`.
        headers: extra response headers.
    """

    def __init__(
        self, status: int, message: str, problems: Sequence[dict[str, Any]] = (), headers: Sequence[tuple[str, str]] = ()
    ) -> None:
        # Names a client made up may hold line breaks.
        super().__init__(" ".join(message.split()))
        self.status = status
        self.problems = list(problems)
        self.headers = list(headers)

    def to_json(self) -> dict[str, Any]:
        """The body of the answer."""
        body: dict[str, Any] = {"error": str(self)}
        if self.problems:
            body["problems"] = self.problems
        return body
