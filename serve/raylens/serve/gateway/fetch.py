"""Fetching images by URL: only from hosts that the operator names, and not from private networks unless allowed.

The threats are those of server-side request forgery: a URL, a redirect or a DNS answer that leads to an address that
only this machine can reach (OWASP, Server-Side Request Forgery Prevention Cheat Sheet).
"""

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import urljoin

import httpx

from raylens.serve.config import UrlConfig
from raylens.serve.messages import Failed, ImageFile

__all__ = ["ByteBudget", "Fetcher"]

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
REDIRECTS = frozenset({301, 302, 303, 307, 308})
PORTS = {"http": 80, "https": 443}
# IPv6 addresses that embed IPv4 ones, to which a gateway on the way may translate them.
EMBEDDED_IPV4 = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96")))


class ByteBudget:
    """The bytes that a request may still fetch."""

    def __init__(self, size: int) -> None:
        self.size, self.left = size, size

    @property
    def exceeded(self) -> Failed | None:
        """The failure of each further image once the budget is exceeded; None before."""
        if self.left >= 0:
            return None
        return Failed("url_too_large", f"the images behind the request's URLs are over {self.size} bytes together")


class Fetcher:
    """Fetches image files by URL, within the limits of a gateway.

    Args:
        config: allowed hosts and limits.
        resolve: returns the addresses of a host and port; the system's resolver if None.
    """

    def __init__(self, config: UrlConfig, resolve: Resolve | None = None) -> None:
        self._config = config
        self._resolve = resolve or _resolve
        self._slots = asyncio.Semaphore(config.max_concurrency)
        self._http: httpx.AsyncClient | None = None

    @property
    def enabled(self) -> bool:
        """Whether any URL is fetched at all."""
        return bool(self._config.hosts)

    def budget(self) -> ByteBudget:
        """Return the budget of a new request."""
        return ByteBudget(self._config.max_total_bytes)

    async def fetch(self, url: str, budget: ByteBudget) -> ImageFile | Failed:
        """Fetch the file behind a URL. Failures do not reveal what this machine learned on the way."""
        try:
            async with self._slots, asyncio.timeout(self._config.timeout_s):
                return budget.exceeded or await self._follow(url, budget)
        except TimeoutError:
            return Failed("url_timeout", f"the image did not arrive within {self._config.timeout_s:g} s")
        except (httpx.HTTPError, httpx.InvalidURL, OSError, UnicodeError):
            return Failed("url_failed", "the image could not be fetched from its URL")

    async def _follow(self, url: str, budget: ByteBudget) -> ImageFile | Failed:
        for _ in range(self._config.max_redirects + 1):
            host, port, refused = self._parts(url)
            if refused:
                return refused
            addresses = [ipaddress.ip_address(text.partition("%")[0]) for text in await self._resolve(host, port)]
            # All addresses are checked, because the next DNS answer may put another one first.
            if not addresses or not all(self._may_reach(address) for address in addresses):
                return Failed("url_not_allowed", f"the host of the URL, {host!r}, has no public address")
            fetched = await self._get(url, host, addresses[0], budget)
            if not isinstance(fetched, str):
                return fetched
            url = urljoin(url, fetched)
        return Failed("url_failed", f"the URL redirects more than {self._config.max_redirects} times")

    def _parts(self, url: str) -> tuple[str, int, Failed | None]:
        parsed = httpx.URL(url)
        host, port = parsed.host.rstrip(".").lower(), parsed.port or PORTS.get(parsed.scheme, 0)
        schemes = ("https", "http") if self._config.http else ("https",)
        if parsed.scheme not in schemes:
            return host, port, Failed("url_not_allowed", f"a URL must begin with {' or '.join(schemes)}")
        if parsed.userinfo or not host:
            return host, port, Failed("url_not_allowed", "a URL must have a host, and no user or password")
        if not any(_allows(pattern, host, port, PORTS[parsed.scheme]) for pattern in self._config.hosts):
            return host, port, Failed("url_not_allowed", f"images are not fetched from {host[:100]!r}, port {port}")
        return host, port, None

    def _may_reach(self, address: Address) -> bool:
        mapped = getattr(address, "ipv4_mapped", None)
        if mapped is not None:
            address = mapped
        if self._config.private:
            return not (address.is_link_local or address.is_multicast or address.is_unspecified)
        embedded = any(address.version == net.version and address in net for net in EMBEDDED_IPV4)
        # Python takes fec0::/10, the private networks of IPv6 until 2004, for global.
        private = isinstance(address, ipaddress.IPv6Address) and address.is_site_local
        return address.is_global and not (address.is_multicast or embedded or private)

    async def _get(self, url: str, host: str, address: Address, budget: ByteBudget) -> ImageFile | Failed | str:
        """Return the file, or the target of a redirect, from the address that was checked, whatever DNS answers now."""
        if self._http is None:
            # Without the machine's proxies and .netrc; each connection fetches one file, so none is kept.
            self._http = httpx.AsyncClient(trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))
        checked_url = httpx.URL(url).copy_with(host=str(address))
        name = f"[{host}]" if ":" in host else host
        port = httpx.URL(url).port
        headers = {"host": name if port is None else f"{name}:{port}", "accept": "image/*", "user-agent": "raylens"}
        request = self._http.build_request("GET", checked_url, headers=headers, extensions={"sni_hostname": host})
        response = await self._http.send(request, stream=True)
        try:
            if response.status_code in REDIRECTS:
                target = response.headers.get("location")
                return target or Failed("url_failed", "the URL redirects without a location")
            if response.status_code != httpx.codes.OK:
                return Failed("url_failed", "the URL was answered with another status than 200")
            return await self._body(response, budget)
        finally:
            await response.aclose()

    async def _body(self, response: httpx.Response, budget: ByteBudget) -> ImageFile | Failed:
        too_large = Failed("url_too_large", f"the image behind the URL is larger than {self._config.max_bytes} bytes")
        declared = response.headers.get("content-length", "")
        if declared.isdecimal() and int(declared) > self._config.max_bytes:
            return too_large
        body = bytearray()
        async for part in response.aiter_raw():  # raw: an image file is compressed already
            body += part
            budget.left -= len(part)
            if len(body) > self._config.max_bytes:
                return too_large
            if refused := budget.exceeded:
                return refused
        return ImageFile(bytes(body))


def _allows(pattern: str, host: str, port: int, usual: int) -> bool:
    name, _, allowed_port = pattern.lower().partition(":")
    if port != (int(allowed_port) if allowed_port.isdecimal() else usual):
        return False
    return name in ("*", host) or (name.startswith("*.") and host.endswith(name[1:]))


async def _resolve(host: str, port: int) -> Sequence[str]:
    addresses = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in addresses]
