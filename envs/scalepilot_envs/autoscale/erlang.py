"""Erlang's waiting probability of M/M/c from a table: exact numbers of servers, interpolated load."""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Over β = (1 − ρ)√c every number of servers has much the same curve: one grid serves them all. Beyond its end nobody waits.
_MAX_BETA, _COLUMNS = 5.0, 640
_EXACT_SERVERS = 128
# Above, curves are interpolated over 1/√c, down to the limit of infinitely many servers at 0.
_FEWER_ROWS = (192, 320, 640, 1600, 6400)


def erlang_c(servers: int, load: Array) -> Array:
    """Waiting probability of M/M/c by the stable recursion of Erlang's loss formula; O(servers).

    Args:
        servers: c, from 1.
        load: any shape, in [0, 1]; utilisation of a server.

    Returns:
        The shape of `load`, probabilities.

    Source:
        A. K. Erlang (1917); the recursion 1/B(k) = 1 + k/a · 1/B(k − 1) and C = B / (1 − ρ(1 − B)) are in every textbook,
        e.g. Gross et al., "Fundamentals of Queueing Theory", 4th edition, 2.4.
    """
    inverse_loss = np.ones_like(load)
    with np.errstate(all="ignore"):
        for k in range(1, servers + 1):
            inverse_loss = 1.0 + inverse_loss * (k / (servers * load))
        probability: Array = 1.0 / np.where(load < 1.0, inverse_loss * (1.0 - load) + load, 1.0)
    return probability


def halfin_whitt(beta: Array) -> Array:
    """Limit of Erlang's waiting probability for c → ∞ at (1 − ρ)√c = β.

    Source:
        S. Halfin and W. Whitt, "Heavy-traffic limits for queues with many exponential servers", Operations Research 29 (1981).
    """
    cumulative: Array = np.array([0.5 * (1.0 + math.erf(b / math.sqrt(2.0))) for b in beta.ravel()]).reshape(beta.shape)
    probability: Array = 1.0 / (1.0 + beta * cumulative * math.sqrt(2.0 * math.pi) * np.exp(0.5 * beta * beta))
    return probability


class _Table(NamedTuple):
    values: Array
    row_of_inverse_root: Array
    inverse_roots: Array


@cache
def _table() -> _Table:
    beta = np.linspace(0.0, _MAX_BETA, _COLUMNS + 1)
    servers = [*range(1, _EXACT_SERVERS + 1), *_FEWER_ROWS]
    rows = [erlang_c(c, np.maximum(1.0 - beta / math.sqrt(c), 0.0)) for c in servers]
    # The last column is repeated, so that the neighbour to the right is always there.
    values = np.array([*rows, halfin_whitt(beta)])
    values = np.concatenate([values, values[:, -1:]], axis=1)
    inverse_roots = np.array([0.0, *(1.0 / math.sqrt(c) for c in reversed(servers[_EXACT_SERVERS - 1 :]))])
    return _Table(values.ravel(), np.arange(len(values) - 1, _EXACT_SERVERS - 2, -1.0), inverse_roots)


def waiting_probability(servers: Array, load: Array) -> Array:
    """Erlang C from the table, within 2e-5 of the exact value.

    Args:
        servers: (n,) whole numbers from 1.
        load: (n,) in [0, 1].

    Returns:
        (n,) probabilities that an arrival waits.
    """
    table = _table()
    position = np.minimum((1.0 - load) * np.sqrt(servers) * (_COLUMNS / _MAX_BETA), float(_COLUMNS))
    column = position.astype(np.int64)
    right: Array = position - column
    row = servers.astype(np.int64)
    row -= 1
    if row.max(initial=0) < _EXACT_SERVERS:
        return _between_columns(table.values, row, column, right)
    between_rows = np.interp(1.0 / np.sqrt(servers), table.inverse_roots, table.row_of_inverse_root)
    place = np.where(servers <= _EXACT_SERVERS, servers - 1.0, between_rows)
    upper = np.minimum(place.astype(np.int64), _EXACT_SERVERS + len(_FEWER_ROWS) - 1)
    at_upper = _between_columns(table.values, upper, column, right)
    share: Array = place - upper
    mixed: Array = at_upper + share * (_between_columns(table.values, upper + 1, column, right) - at_upper)
    return mixed


def _between_columns(values: Array, row: NDArray[np.int64], column: NDArray[np.int64], right: Array) -> Array:
    at = row * (_COLUMNS + 2)
    at += column
    left = values.take(at)
    at += 1
    between: Array = values.take(at)
    between -= left
    between *= right
    between += left
    return between
