"""The usual right request, read in C: one observation or a list of them, every field there and within its range.

Everything else, right or wrong, is left to `schema.py`, which is ten times slower and explains. Both give the same answers;
`tests/unit/test_serve_fast.py` holds them to it.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from scalepilot.policy import FieldEntry
from scalepilot_envs.description import is_mask

MAX_OBSERVATIONS = 4096


class FastReader:
    """Reads `{"observation": {…} or [{…}, …]}` for one policy.

    Args:
        fields: of its observation.
    """

    def __init__(self, fields: tuple[FieldEntry, ...]) -> None:
        # A mask may be left out, and must leave a valid action: that is looked at in `schema.py`.
        self._masked = any(is_mask(field.name) for field in fields)
        self._quotes = 2 * len(fields)
        self._decoder: msgspec.json.Decoder[Any] | None = None
        names = {f"f{i}": field.name for i, field in enumerate(fields)}
        columns = [
            (name, Annotated[float, msgspec.Meta(ge=field.low, le=field.high)]) for name, field in zip(names, fields, strict=True)
        ]
        try:
            observation = msgspec.defstruct("Observation", columns, rename=names, forbid_unknown_fields=True, gc=False)
        except ValueError:
            # A name with a quotation mark, a backslash or a control character is more than msgspec writes.
            return
        many = Annotated[list[observation], msgspec.Meta(min_length=1, max_length=MAX_OBSERVATIONS)]  # type: ignore[valid-type]
        request = msgspec.defstruct("Request", [("observation", observation | many)], forbid_unknown_fields=True, gc=False)
        self._decoder = msgspec.json.Decoder(request)

    def read(self, body: bytes) -> tuple[list[tuple[float, ...]], bool] | None:
        """The observations, fields in order, and whether they came as a list; None for what `schema.py` must look at."""
        if self._masked or self._decoder is None:
            return None
        try:
            observation = self._decoder.decode(body).observation
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
            return None
        many = isinstance(observation, list)
        rows = [msgspec.structs.astuple(row) for row in observation] if many else [msgspec.structs.astuple(observation)]
        # Every key was there; more quotation marks than theirs mean that one was given twice, which the decoder lets pass.
        if body.count(b'"') != 2 + self._quotes * len(rows):
            return None
        return rows, many
