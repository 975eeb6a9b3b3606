"""What a request can do wrong, as an HTTP status and one line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from scalepilot.errors import InputError


class RequestError(InputError):
    """A request that is not answered with a 200.

    Args:
        status: HTTP status code.
        message: one line: field, value, what is allowed.
        problems: one entry a field: {"field", "problem", "unit", "low", "high"}, and "index" within a list of observations.
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
        """The body every error has."""
        body: dict[str, Any] = {"error": str(self)}
        if self.problems:
            body["problems"] = self.problems
        return body
