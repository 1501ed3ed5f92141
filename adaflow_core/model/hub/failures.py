"""Turns exceptions of the Hub's library into sentences with the cause and the remedy."""

from __future__ import annotations

import errno
import re

import httpx2
from huggingface_hub import constants, get_token
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

NO_WAY = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError)  # the Hub cannot be reached
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LATER = "what is there of a download is kept, so the same command goes on from it later"


def cause(error: BaseException) -> BaseException:
    """Return the exception behind the library's "not in the cache"."""
    while isinstance(error, LocalEntryNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def passes(error: BaseException) -> bool:
    """Whether the same request may succeed a little later."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code in (408, 429) or error.response.status_code >= 500
    return isinstance(error, httpx2.TransportError)


def explain(error: BaseException, repo: str, revision: str | None) -> str:
    """Return a sentence for the user on an error with a repository of the Hub."""
    error = cause(error)
    page = f"{constants.ENDPOINT}/{repo}"
    if isinstance(error, OfflineModeIsEnabled):
        return f"{repo} is not complete in the cache, and HF_HUB_OFFLINE is set; unset it once to download the model"
    if isinstance(error, GatedRepoError):
        return f"{repo} is gated: accept its terms at {page}, then log in with: hf auth login"
    if isinstance(error, RepositoryNotFoundError):
        return f"the Hub has no model {repo}, or it is private: check its name, or log in with: hf auth login"
    if isinstance(error, RevisionNotFoundError):
        return f"{repo} has no revision {revision!r}; {page}/commits/main lists them, and without @ you get the newest"
    if isinstance(error, DisabledRepoError):
        return f"{repo} has been disabled on the Hub; choose another model ({page} may say why)"
    if isinstance(error, RemoteEntryNotFoundError):
        return f"a file of {repo} is missing on the Hub; choose another revision of it, or another model"
    if isinstance(error, HfHubHTTPError):
        return _by_status(error.response, repo)
    if isinstance(error, NO_WAY):
        return f"{constants.ENDPOINT} cannot be reached: check the network and HTTPS_PROXY, or give a path instead"
    if isinstance(error, httpx2.TimeoutException):
        return f"the Hub sends nothing more of {repo}; check the network: {_LATER}"
    if isinstance(error, httpx2.TransportError):
        return f"the connection broke off while {repo} was fetched; check the network: {_LATER}"
    if isinstance(error, OSError) and error.errno in _FULL:
        return (
            f"the disk is full: free some space in {constants.HF_HUB_CACHE}, or set HF_HOME to a larger one; {_LATER}"
        )
    if isinstance(error, OSError) and error.errno:
        return f"{error.filename or constants.HF_HUB_CACHE} cannot be written ({error.strerror}); set HF_HOME elsewhere"
    said = re.sub(r"\s+", " ", str(error)).strip()[:200] or type(error).__name__
    return f"{repo} cannot be fetched from the Hub ({said}); download it yourself and give its path"


def _by_status(response: httpx2.Response, repo: str) -> str:
    status = response.status_code
    if status == 401:
        return "the Hub does not accept your token; log in again with: hf auth login (or unset HF_TOKEN)"
    if status == 403:
        return f"your account may not read {repo}; give its token read access at {constants.ENDPOINT}/settings/tokens"
    if status == 429:
        more = "" if get_token() else ", or log in with: hf auth login, for more requests an hour"
        return f"the Hub takes no more requests from here for now (429); try again in some minutes{more}"
    if status >= 500:
        return f"the Hub has trouble of its own ({status}); nothing is wrong here: try again later"
    return f"the Hub refuses {repo} ({status}); look at {constants.ENDPOINT}/{repo}, or choose another model"
