"""Who asks for a job: the names by which the server knows a visitor."""

from __future__ import annotations

from contextvars import ContextVar
from ipaddress import ip_address

from gradio.context import LocalContext

# The address of a client of the tools for language models, which has no session.
client_address: ContextVar[str] = ContextVar("client_address", default="")
_AT_AN_ADDRESS = 3  # tabs' worth of jobs: it may be that of a household or an office


def visitor(own: float) -> dict[str, float]:
    """The names of the visitor whose event this is, each with how many unfinished jobs it may have, by a tab's `own`.

    A tab is known by its session, and by its address unless that is a proxy's or of the local network. Of what the
    server does by itself there are none.
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
