"""What a username and a password must be (PROTOCOL 1.3, 4.1.2); the same rules for the routes and the command line."""

from __future__ import annotations

import unicodedata

from openguild_proto.errors import FieldProblem
from openguild_proto.limits import MAX_NAME_CHARS, MAX_PASSWORD_CHARS, MAX_RAW_NAME_CHARS, MIN_PASSWORD_CHARS
from openguild_proto.policy.names import text_problem, username_problem

MUST = "must be provided"


def normalise_username(text: str) -> tuple[str, str]:
    """(name as kept, key that is unique): NFKC, trimmed; the key is case-folded, and NFKC again (PROTOCOL 1.3.2).

    What no normalisation could make short enough comes back trimmed only, so that `username_problems` refuses its length:
    to order combining marks takes the square of their number.
    """
    text = text.strip()
    if len(text) > MAX_RAW_NAME_CHARS:
        return text, text
    name = unicodedata.normalize("NFKC", text).strip()
    return name, unicodedata.normalize("NFKC", name.casefold())


def username_problems(name: str) -> list[FieldProblem]:
    """`name` as `normalise_username` gave it. Asked of new names only: who has an older one may log in by it."""
    if not name:
        return [FieldProblem("username", MUST)]
    if len(name) > MAX_NAME_CHARS:
        return [FieldProblem("username", f"must be at most {MAX_NAME_CHARS} characters long")]
    problem = username_problem(name)
    return [FieldProblem("username", problem)] if problem is not None else []


def password_problems(password: str, field: str = "password") -> list[FieldProblem]:
    """`password` already trimmed. Lengths count characters, not bytes."""
    if not password:
        return [FieldProblem(field, MUST)]
    if len(password) < MIN_PASSWORD_CHARS:
        return [FieldProblem(field, f"must be at least {MIN_PASSWORD_CHARS} characters long")]
    if len(password) > MAX_PASSWORD_CHARS:
        return [FieldProblem(field, f"must be at most {MAX_PASSWORD_CHARS} characters long")]
    problem = text_problem(password)
    return [FieldProblem(field, problem)] if problem is not None else []
