"""Who a client is, by his connection or by the word of a proxy of ours."""

from __future__ import annotations

import ipaddress

import pytest
from aiohttp.test_utils import make_mocked_request

from manifests.errors import ConfigError
from server.hosting.addresses import Addresses, network_of, parse_address

PROXY = "127.0.0.9"


def packed(text: str) -> bytes:
    return ipaddress.ip_address(text).packed


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("192.0.2.1", packed("192.0.2.1")),
        ("::ffff:192.0.2.1", packed("192.0.2.1")),
        ("2001:db8::1", packed("2001:db8::1")),
        ("fe80::1%eth0", packed("fe80::1")),
        ("", None),
        ("unknown", None),
        ("192.0.2.1, 192.0.2.2", None),
    ],
)
def test_an_address_is_read(text: str, address: bytes | None) -> None:
    assert parse_address(text) == address


def test_an_ipv6_address_stands_for_its_network() -> None:
    assert network_of(packed("2001:db8:0:1::1")) == network_of(packed("2001:db8:0:1:ffff::2"))
    assert network_of(packed("2001:db8:0:1::1")) != network_of(packed("2001:db8:0:2::1"))
    assert network_of(packed("192.0.2.1")) != network_of(packed("192.0.2.2"))


@pytest.mark.parametrize(
    ("remote", "headers", "address"),
    [
        (PROXY, {"X-Forwarded-For": "192.0.2.1"}, "192.0.2.1"),
        (f"::ffff:{PROXY}", {"X-Forwarded-For": "192.0.2.1"}, "192.0.2.1"),
        # The proxy adds what it saw to what the client said.
        (PROXY, {"X-Forwarded-For": "10.0.0.1, 192.0.2.1"}, "192.0.2.1"),
        (PROXY, {}, PROXY),
        (PROXY, {"X-Forwarded-For": "nobody"}, None),
        ("192.0.2.7", {"X-Forwarded-For": "192.0.2.1"}, "192.0.2.7"),
    ],
)
def test_a_proxy_of_ours_is_believed_and_nobody_else(
    remote: str, headers: dict[str, str], address: str | None
) -> None:
    request = make_mocked_request("GET", "/", headers=headers).clone(remote=remote)
    assert Addresses([PROXY]).of(request) == (packed(address) if address else None)


def test_what_is_no_address_is_no_proxy() -> None:
    with pytest.raises(ConfigError, match="trusted-proxy 'nginx'"):
        Addresses(["nginx"])
