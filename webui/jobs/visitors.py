"""Who asks for a job: the names by which the server knows a visitor."""

from __future__ import annotations

from contextvars import ContextVar
from ipaddress import ip_address

from gradio.context import LocalContext

# The address of a client of the tools for language models, which has no session.
client_address: ContextVar[str] = ContextVar("client_address", default="")
_AT_AN_ADDRESS = 3  # times a tab's jobs: a household or an office may share an address


def visitor(own: float) -> dict[str, float]:
    """Return the names of the current event's visitor, each with how many unfinished jobs it may have.

    `own` is the number for one tab. A tab is known by its session, and also by its address if that is public: a proxy
    or the local network would stand for many visitors. Empty for what the server does by itself.
    """
    request = LocalContext.request.get(None)
    if request is None:
        address = client_address.get()
        return {f"address {address}": _AT_AN_ADDRESS * own} if address else {}
    found = {f"session {request.session_hash}": own}
    client = getattr(request, "client", None)
    address = client.host if client is not None else ""
    if _is_public(address):
        found[f"address {address}"] = _AT_AN_ADDRESS * own
    return found


def _is_public(address: str) -> bool:
    try:
        return ip_address(address).is_global
    except ValueError:  # such as a name, or none
        return False
