"""Policies that come with Scalepilot, under addresses such as `scalepilot://general`."""

from __future__ import annotations

from pathlib import Path

from scalepilot.errors import InputError, did_you_mean

SCHEME = "scalepilot://"
# What is left of the scheme once a path has been made of it.
_AS_PATH = "scalepilot:"
_FOLDER = Path(__file__).resolve().parent / "shipped_policies"


def shipped_policies() -> dict[str, Path]:
    """Address → folder of every policy that comes with this installation."""
    folders = sorted(file.parent for file in _FOLDER.glob("*/policy.json"))
    return {f"{SCHEME}{folder.name}": folder for folder in folders}


def shipped_names() -> list[str]:
    """Names behind the addresses."""
    return [address.removeprefix(SCHEME) for address in shipped_policies()]


def located(path: Path | str) -> Path:
    """The folder behind an address; any other path as it is.

    Args:
        path: given by a user.

    Raises:
        InputError: no policy of that name comes with this installation.
    """
    text = str(path)
    if not text.startswith(_AS_PATH):
        return Path(path)
    address = SCHEME + text.removeprefix(_AS_PATH).strip("/")
    known = shipped_policies()
    if address not in known:
        raise InputError(
            f"{address}: no such policy is shipped; allowed: {', '.join(known) or 'none here'}{did_you_mean(address, known)}"
        )
    return known[address]
