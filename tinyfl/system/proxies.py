"""The proxies in the environment, by which Flower's programs reach a SuperLink."""

import os
from collections.abc import Mapping, MutableMapping
from urllib.parse import urlsplit
from urllib.request import proxy_bypass

from tinyfl.errors import ConfigError
from tinyfl.errors.words import plain
from tinyfl.system.addresses import LOOPBACK, loopback

NAMES = tuple(each for name in ("https_proxy", "http_proxy", "all_proxy") for each in (name, name.upper()))
"""The variables with a proxy; the small ones go first, as everywhere."""


def exempt_loopback(environment: MutableMapping[str, str]) -> None:
    """Exempts this machine from the proxies: no proxy leads to the programs on it, which Flower's ask over its loopback."""
    exempt = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    names = [name for name in exempt.split(",") if name.strip()]
    if "*" not in names:
        exempt = ",".join(dict.fromkeys((*names, *LOOPBACK)))
    environment["no_proxy"] = environment["NO_PROXY"] = exempt


def proxies() -> Mapping[str, str]:
    """The proxies in the environment by their variables, without their passwords."""
    return {name: _address(os.environ[name]) for name in NAMES if os.environ.get(name)}


def proxy_note(host: str, scheme: str) -> str:
    """The proxy on the way to ``host``, and the cure if it should not be there; empty if there is none."""
    found = proxies()
    names = [name for each in (scheme, "all") for name in (f"{each}_proxy", f"{each}_proxy".upper()) if name in found]
    if not names or loopback(host) or proxy_bypass(host):
        return ""
    return (
        f"by way of the proxy {found[names[0]]}, as {names[0]} says. For a machine inside your network, add it to NO_PROXY "
        f"(export NO_PROXY={host}), and start again"
    )


def demand_usable() -> None:
    """Raises ConfigError if Flower's client cannot use the proxies in the environment."""
    found = proxies()
    if not found:
        return
    import httpx

    named = ", ".join([*found, *(name for name in ("no_proxy", "NO_PROXY") if os.environ.get(name))])
    try:
        httpx.Client(verify=False).close()
    except ImportError as error:
        raise ConfigError(
            f"Flower cannot use the SOCKS proxy in the environment ({named}) without socksio. Run: pip install 'httpx[socks]', "
            "or unset the variable."
        ) from error
    except Exception as error:  # of several kinds; its words may have a part of a password
        raise ConfigError(
            f"Flower cannot use the proxies in the environment ({named}). Write each as http://HOST:PORT, and NO_PROXY as "
            "names and addresses, without brackets and masks, with commas between."
        ) from error


def _address(proxy: str) -> str:
    """A proxy's address without user and password."""
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        host, port = parts.hostname or "", f":{parts.port}" if parts.port else ""
    except ValueError:
        return "that is no address"
    return plain(f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{port}")
