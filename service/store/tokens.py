"""Tokens: secrets that give access to the service, each with a scope: read, submit or admin.

A token is `ib_<id>_<secret>` with 256 random bits; the store keeps the SHA-256 of the secret, so that it cannot be read
from a copy of the database. From the first token on every request needs one, even when all have been revoked.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from ..records.base import Page
from ..records.errors import NotFoundError, StoreError
from ..records.jobs import SCOPES, NewToken, TokenRow
from ..storage.pages import page
from ..storage.references import new_id, resolve
from ..storage.tables import Token
from .saving import now
from .transactions import Transactions

__all__ = ["Tokens"]


class Tokens(Transactions):
    """The part of the store for tokens."""

    def new_token(self, name: str, scope: str = "read") -> NewToken:
        """Make a token; only the caller learns its secret.

        Raises:
            StoreError: the scope is unknown, or the name is empty or cannot be printed.
        """
        if scope not in SCOPES:
            raise StoreError(f"there is no scope {scope!r}: expected one of {', '.join(SCOPES)}")
        if not name.strip() or not name.isprintable() or len(name) > 200:
            raise StoreError(f"a token cannot be called {name!r}: expected up to 200 printable characters")
        secret = secrets.token_urlsafe(32)

        def make(session: Session) -> TokenRow:
            digest = hashlib.sha256(secret.encode()).hexdigest()
            row = Token(id=new_id(session, Token, digest), created=now(), name=name, scope=scope, sha256=digest)
            session.add(row)
            session.flush()
            return _token_row(row)

        row = self._write(make)
        return NewToken(**vars(row), token=f"ib_{row.id}_{secret}")

    def get_token(self, ref: str) -> TokenRow:
        """Return the token with this ID, without its secret.

        Raises:
            NotFoundError: there is no such token, or it was revoked.
        """
        with self._read() as session:
            row = _token_row(resolve(session, Token, ref))
        if row.revoked:
            raise NotFoundError(f"{row.id} was revoked: make a new token")
        return row

    def tokens(self, *, cursor: str | None = None, limit: int = 100, newest_first: bool = False) -> Page[TokenRow]:
        """List all tokens, revoked ones too."""
        options: dict[str, Any] = {"cursor": cursor, "limit": limit, "newest_first": newest_first}
        with self._read() as session:
            return page(session, Token, select(Token), _token_row, **options)

    def revoke_token(self, ref: str) -> TokenRow:
        """Revoke a token, at once and for ever."""

        def revoke(session: Session) -> TokenRow:
            row = resolve(session, Token, ref)
            row.revoked = row.revoked or now()
            return _token_row(row)

        return self._write(revoke)

    def needs_token(self) -> bool:
        """Return whether requests need a token: from the first token on, every request does."""
        with self._read() as session:
            return bool(session.scalar(select(func.count()).select_from(Token)))

    def scope_of(self, token: str) -> str | None:
        """Return the scope of a token; None for an unknown or revoked one. Compare secrets in constant time."""
        prefix, _, rest = token.partition("_")
        identifier, _, secret = rest.partition("_")
        given = hashlib.sha256(secret.encode(errors="replace")).hexdigest()
        with self._read() as session:
            row = session.scalar(select(Token).where(Token.id == identifier)) if identifier.isprintable() else None
            same = hmac.compare_digest(given, row.sha256 if row is not None else "0" * 64)
            return row.scope if row is not None and same and prefix == "ib" and row.revoked is None else None


def _token_row(row: Token) -> TokenRow:
    return TokenRow(**{name: getattr(row, name) for name in TokenRow.__dataclass_fields__})
