"""Answers that are not the server's: of proxies, captive portals, and whatever else stands in between.

They say nothing about the request. It is tried again as if nobody had answered, and nothing in them is followed: the
token goes to the addresses that the client was given, and nowhere else.
"""

from __future__ import annotations

from openguild_proto.client.http import ClientResponse
from openguild_proto.client.retry_advice import is_temporary

_SERVER_TYPES = frozenset({"application/json", "text/plain"})  # all that the server answers with
_SHOWN_CHARS = 200


def proxy_answer_reason(response: ClientResponse) -> str | None:
    """Why this is not an answer of the server; None: it may be one. Overload and outages (5xx, 429) pass in any form."""
    if is_temporary(response.status):
        return None
    if 300 <= response.status < 400:
        target = _printable(response.header("location") or "nowhere")
        return (
            f"HTTP {response.status} to {target}: redirects are not followed; give the client the server's own address"
        )
    coding = (response.header("content-encoding") or "identity").strip().lower()
    if coding != "identity":
        return f"HTTP {response.status} in the coding {_printable(coding)}, which was not asked for"
    kind = media_type(response)
    is_ours = kind in _SERVER_TYPES if kind else response.body.lstrip()[:1] in (b"{", b"[")
    if response.body and not is_ours:
        return f"HTTP {response.status} with {_printable(kind) or 'no content type'}: not from the server, but from a proxy or portal"
    return None


def media_type(response: ClientResponse) -> str:
    """In lower case, without parameters; "" where the answer has none."""
    return (response.header("content-type") or "").partition(";")[0].strip().lower()


def _printable(text: str) -> str:
    """A foreign text for an error: short, and nothing but visible ASCII."""
    return text[:_SHOWN_CHARS].encode("ascii", "replace").decode().translate(_VISIBLE)


_VISIBLE = dict.fromkeys((*range(32), 127), "?")
