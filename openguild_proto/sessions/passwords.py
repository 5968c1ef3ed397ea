"""Rules for usernames and passwords (PROTOCOL 1.3, 4.1.2), for the routes and the command line."""

from __future__ import annotations

import re
import unicodedata

from openguild_proto.errors import FieldProblem
from openguild_proto.limits import MAX_NAME_CHARS, MAX_PASSWORD_CHARS, MAX_RAW_NAME_CHARS, MIN_PASSWORD_CHARS
from openguild_proto.policy.names import text_problem, username_problem

MUST = "must be provided"
_HASH = re.compile(r"\$argon2id\$v=19\$m=\d{1,7},t=\d{1,2},p=\d(\$[A-Za-z0-9+/]{22,86}){2}")


def is_password_hash(text: str) -> bool:
    """Return whether the text has the form of a stored password hash (PROTOCOL 4.1.3)."""
    return _HASH.fullmatch(text) is not None


def normalise_username(text: str) -> tuple[str, str]:
    """Return (name, unique key): the name trimmed and in NFKC; the key is also case-folded (PROTOCOL 1.3.2).

    Text that is too long for any normalised name is only trimmed, and `username_problems` then rejects it, because
    normalisation takes quadratic time in the number of combining marks.
    """
    text = text.strip()
    if len(text) > MAX_RAW_NAME_CHARS:
        return text, text
    name = unicodedata.normalize("NFKC", text).strip()
    return name, unicodedata.normalize("NFKC", name.casefold())


def username_problems(name: str) -> list[FieldProblem]:
    """Return the problems of a normalised name. Only for new names: existing accounts keep theirs."""
    if not name:
        return [FieldProblem("username", MUST)]
    if len(name) > MAX_NAME_CHARS:
        return [FieldProblem("username", f"must be at most {MAX_NAME_CHARS} characters long")]
    problem = username_problem(name)
    return [FieldProblem("username", problem)] if problem is not None else []


def secret_problems(secret: str, field: str) -> list[FieldProblem]:
    """Return the problems of a trimmed password to verify. Accepts any that an account may have."""
    if not secret:
        return [FieldProblem(field, MUST)]
    if len(secret) > MAX_PASSWORD_CHARS:
        return [FieldProblem(field, f"must be at most {MAX_PASSWORD_CHARS} characters long")]
    return []


def password_problems(password: str, field: str = "password") -> list[FieldProblem]:
    """Return the problems of a trimmed new password. Lengths are in characters."""
    if not password:
        return [FieldProblem(field, MUST)]
    if len(password) < MIN_PASSWORD_CHARS:
        return [FieldProblem(field, f"must be at least {MIN_PASSWORD_CHARS} characters long")]
    if len(password) > MAX_PASSWORD_CHARS:
        return [FieldProblem(field, f"must be at most {MAX_PASSWORD_CHARS} characters long")]
    problem = text_problem(password)
    return [FieldProblem(field, problem)] if problem is not None else []
