"""Connections to servers, one transport of httpx for each call under way.

A pool of httpx looks at every connection for every other one whenever a call starts or ends: with 64 in flight that alone holds a
process to some 80 calls a second. A transport with a single connection has nothing to look through. What a client of httpx adds
to its transport (cookies, redirects, merged addresses) is of no use here and costs as much as the rest.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.request import getproxies, proxy_bypass

if TYPE_CHECKING:
    import httpx

CONNECT = 15.0
"""Seconds for opening a connection; the whole attempt has a time-out of its own."""
IDLE = 30.0
"""Seconds after which an unused connection is opened anew."""


@dataclass
class Connections:
    """Transports that are free, by the proxy they go through; the one used last on top, whose connection is likeliest open still."""

    _free: dict[str, list[httpx.AsyncHTTPTransport]] = field(default_factory=dict)
    _proxies: dict[tuple[str, str], str] = field(default_factory=dict)
    _trust: ssl.SSLContext | None = None

    async def post(self, url: httpx.URL, headers: Mapping[str, str], content: bytes) -> httpx.Response:
        """Send a body and read the whole answer. Raises httpx.HTTPError; the caller sets the time."""
        return await self.send("POST", url, headers, content)

    async def send(self, method: str, url: httpx.URL, headers: Mapping[str, str], content: bytes = b"") -> httpx.Response:
        """`post` with another method."""
        import httpx

        proxy = self._proxy(url)
        free = self._free.setdefault(proxy, [])
        transport = free.pop() if free else self._new(proxy)
        try:
            request = httpx.Request(method, url, headers=headers, content=content, extensions=_PATIENCE)
            response = await transport.handle_async_request(request)
            try:
                await response.aread()
            finally:
                await response.aclose()
            return response
        finally:
            free.append(transport)

    def _proxy(self, url: httpx.URL) -> str:
        """The proxy that the environment has for a host, or an empty string; a server on this machine needs none."""
        place = (url.scheme, url.host)
        if place not in self._proxies:
            known = getproxies()
            proxy = known.get(url.scheme) or known.get("all") or ""
            straight = not proxy or url.host in ("127.0.0.1", "localhost", "::1") or bool(proxy_bypass(url.host))
            self._proxies[place] = "" if straight else proxy if "://" in proxy else f"http://{proxy}"
        return self._proxies[place]

    def _new(self, proxy: str) -> httpx.AsyncHTTPTransport:
        import httpx

        if self._trust is None:
            self._trust = httpx.create_ssl_context()  # reads every root certificate: once is enough
        limits = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=IDLE)
        return httpx.AsyncHTTPTransport(verify=self._trust, limits=limits, proxy=proxy or None)


_PATIENCE = {"timeout": {"connect": CONNECT, "read": None, "write": None, "pool": None}}
