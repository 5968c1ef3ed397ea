"""Recognises responses from a proxy or captive portal instead of the server.

The client treats them as no response and retries. It follows no redirects: it sends its token only to the addresses that it was
configured with.
"""

from __future__ import annotations

from openguild_proto.client.http import ClientResponse
from openguild_proto.client.retry_advice import is_temporary

_SERVER_TYPES = frozenset({"application/json", "text/plain"})  # the types of all responses of the server
_SHOWN_CHARS = 200


def proxy_answer_reason(response: ClientResponse) -> str | None:
    """Return why this is not a response of the server, or None. Temporary statuses (5xx, 429) are accepted in any form."""
    if is_temporary(response.status):
        return None
    if 300 <= response.status < 400:
        target = _printable(response.header("location") or "nowhere")
        return f"HTTP {response.status} to {target}: redirects are not followed; use the server's own address"
    coding = (response.header("content-encoding") or "identity").strip().lower()
    if coding != "identity":
        return f"HTTP {response.status} with the content coding {_printable(coding)}, which was not requested"
    kind = media_type(response)
    is_ours = kind in _SERVER_TYPES if kind else response.body.lstrip()[:1] in (b"{", b"[")
    if response.body and not is_ours:
        shown = _printable(kind) or "no content type"
        return f"HTTP {response.status} with {shown}: not from the server, perhaps from a proxy or captive portal"
    return None


def media_type(response: ClientResponse) -> str:
    """Return the media type in lower case without parameters; "" if there is none."""
    return (response.header("content-type") or "").partition(";")[0].strip().lower()


def _printable(text: str) -> str:
    """Return an untrusted text for an error message: short, visible ASCII only."""
    return text[:_SHOWN_CHARS].encode("ascii", "replace").decode().translate(_VISIBLE)


_VISIBLE = dict.fromkeys((*range(32), 127), "?")
