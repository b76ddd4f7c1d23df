"""Listings page by page: one way for every List operation.

A page begins after the last row of the one before it, by the value it was sorted by and its name, so rows that come
and go meanwhile neither repeat nor hide others. NextToken is opaque to callers and says which listing it belongs to.

Invariant: a token is taken only by the listing, order and filters that gave it out; anything else is
`PageTokenInvalid`, never another page.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, tuple_

from lightkeeper.errors import PageTokenInvalid, ShapeMismatch

PAGE_LIMIT = 100
_PAGING = frozenset({"NextToken", "MaxResults"})


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows, and the token of the page after them (None: there is none)."""

    rows: Sequence[Row[Any]]
    next_token: str | None


def page(  # noqa: PLR0913 - a query, which page of it, and its order
    connection: Connection,
    query: Select[Any],
    given: Mapping[str, Any],
    *,
    by: Sequence[ColumnElement[Any]],
    descending: bool = False,
    most: int = PAGE_LIMIT,
) -> Page:
    """Return a page of a query, sorted by columns that together are unique and are all in the query.

    `given` is the operation's whole input: NextToken and MaxResults say which page, all else what is listed.
    Raises `PageTokenInvalid`, and `ShapeMismatch` for a MaxResults below 1.
    """
    count = given.get("MaxResults", most)
    if count < 1:
        rule = "be from 1 on"
        raise ShapeMismatch(
            f"Value '{count}' at 'maxResults' failed to satisfy constraint: Member must {rule}",
            member="maxResults",
            rule=rule,
        )
    listing = _listing(query, given, descending=descending)
    columns = tuple_(*by)
    if token := given.get("NextToken"):
        after = tuple_(*_after(token, listing, by))
        query = query.where(columns < after if descending else columns > after)
    query = query.order_by(*(column.desc() if descending else column.asc() for column in by)).limit(count + 1)
    rows = connection.execute(query).all()
    if len(rows) <= count:
        return Page(rows, None)
    last = rows[count - 1]
    return Page(rows[:count], _token(listing, [last._mapping[column] for column in by]))  # noqa: SLF001 - its public name


def matches(column: ColumnElement[Any], text: str | None) -> list[ColumnElement[bool]]:
    """Return the condition of a NameContains, if it was given."""
    return [] if text is None else [column.contains(text, autoescape=True)]


def between(column: ColumnElement[Any], given: Mapping[str, Any], what: str) -> list[ColumnElement[bool]]:
    """Return the conditions of `{what}After` and `{what}Before`, as far as they were given."""
    conditions = []
    if (after := given.get(f"{what}After")) is not None:
        conditions.append(column > after)
    if (before := given.get(f"{what}Before")) is not None:
        conditions.append(column < before)
    return conditions


def _listing(query: Select[Any], given: Mapping[str, Any], *, descending: bool) -> str:
    """Return what tells this listing from every other."""
    columns = [str(column) for column in query.selected_columns]
    asked = sorted((name, value) for name, value in given.items() if name not in _PAGING)
    return sha256(json.dumps([columns, asked, descending]).encode()).hexdigest()[:16]


def _token(listing: str, values: Sequence[Any]) -> str:
    return urlsafe_b64encode(json.dumps([listing, *values], separators=(",", ":")).encode()).decode()


def _after(token: str, listing: str, by: Sequence[ColumnElement[Any]]) -> list[Any]:
    refusal = PageTokenInvalid("NextToken is none that this listing gave out")
    try:
        found = json.loads(urlsafe_b64decode(token.encode("ascii")))
    except (ValueError, RecursionError) as error:
        raise refusal from error
    if not isinstance(found, list) or len(found) != len(by) + 1 or found[0] != listing:
        raise refusal
    for column, value in zip(by, found[1:], strict=True):
        kind = column.type.python_type
        if type(value) is not kind or (kind is int and abs(value) >= 1 << 63):
            raise refusal
        if kind is str and ("\0" in value or not value.isascii()):
            raise refusal
    return found[1:]
