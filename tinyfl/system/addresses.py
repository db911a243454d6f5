"""Addresses and ports of this machine."""

import ipaddress
import os
import socket
import sys

LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""The names of this machine."""


def loopback(host: str) -> bool:
    """Whether ``host`` is a loopback address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def free_port() -> int:
    """A free TCP port of the loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def real_port(url: str) -> str:
    """Resolves a port's aliases to one name: follows links, and turns a Mac's /dev/tty.NAME into /dev/cu.NAME."""
    if "://" in url or "\0" in url:
        return url
    path = os.path.realpath(url)
    return path.replace("/dev/tty.", "/dev/cu.", 1) if sys.platform == "darwin" else path
