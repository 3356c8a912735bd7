"""Images by URL, where the operator allows it: only from named hosts, never from inside the network by accident.

The threats are those of server-side request forgery: a URL, a redirect or a DNS answer that leads to what only this
machine can reach (OWASP, Server-Side Request Forgery Prevention Cheat Sheet).
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
# Addresses that stand for IPv4 ones, which a gateway on the way may be led to.
EMBEDDING = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96")))


class ByteBudget:
    """Bytes that a request may still fetch."""

    def __init__(self, size: int) -> None:
        self.size, self.left = size, size

    @property
    def exceeded(self) -> Failed | None:
        """What each image is answered with from then on."""
        if self.left >= 0:
            return None
        return Failed("url_too_large", f"the images behind the request's URLs are over {self.size} bytes together")


class Fetcher:
    """Fetches image files.

    Args:
        config: see there.
        resolve: a host and port to addresses; the system's resolver if None.
    """

    def __init__(self, config: UrlConfig, resolve: Resolve | None = None) -> None:
        self._config = config
        self._resolve = resolve or _resolve
        self._slots = asyncio.Semaphore(config.max_concurrency)
        self._http: httpx.AsyncClient | None = None

    @property
    def enabled(self) -> bool:
        """Any URL is fetched at all."""
        return bool(self._config.hosts)

    def budget(self) -> ByteBudget:
        """Of a request."""
        return ByteBudget(self._config.max_total_bytes)

    async def fetch(self, url: str, budget: ByteBudget) -> ImageFile | Failed:
        """The file behind a URL. What is wrong is said without what this machine found out on the way."""
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
            addresses = [ipaddress.ip_address(one.partition("%")[0]) for one in await self._resolve(host, port)]
            # All of them: the next answer may put another one first.
            if not addresses or not all(self._may_reach(address) for address in addresses):
                return Failed("url_not_allowed", f"the host of the URL, {host!r}, has no public address")
            found = await self._get(url, host, addresses[0], budget)
            if not isinstance(found, str):
                return found
            url = urljoin(url, found)
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
        embedded = any(address.version == net.version and address in net for net in EMBEDDING)
        # fec0::/10, the private networks of IPv6 until 2004, is global to Python.
        private = isinstance(address, ipaddress.IPv6Address) and address.is_site_local
        return address.is_global and not (address.is_multicast or embedded or private)

    async def _get(self, url: str, host: str, address: Address, budget: ByteBudget) -> ImageFile | Failed | str:
        """The file, or where a redirect leads. Connects to the address that was checked, not to what DNS says next."""
        if self._http is None:
            # No proxies and no .netrc of the machine; each answer is one connection, so none is kept.
            self._http = httpx.AsyncClient(trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))
        pinned = httpx.URL(url).copy_with(host=str(address))
        named = f"[{host}]" if ":" in host else host
        given = httpx.URL(url).port
        headers = {"host": named if given is None else f"{named}:{given}", "accept": "image/*", "user-agent": "raylens"}
        request = self._http.build_request("GET", pinned, headers=headers, extensions={"sni_hostname": host})
        response = await self._http.send(request, stream=True)
        try:
            if response.status_code in REDIRECTS:
                leads = response.headers.get("location")
                return leads or Failed("url_failed", "the URL redirects to nowhere")
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
        async for part in response.aiter_raw():  # not unpacked: an image is packed already
            body += part
            budget.left -= len(part)
            if len(body) > self._config.max_bytes:
                return too_large
            if refused := budget.exceeded:
                return refused
        return ImageFile(bytes(body))


def _allows(pattern: str, host: str, port: int, usual: int) -> bool:
    name, _, wanted = pattern.lower().partition(":")
    if port != (int(wanted) if wanted.isdecimal() else usual):
        return False
    return name in ("*", host) or (name.startswith("*.") and host.endswith(name[1:]))


async def _resolve(host: str, port: int) -> Sequence[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(address[0]) for *_, address in found]
