"""Whose address is believed: nobody's word but that of named proxies."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_training.api.client_addresses import client_address

PROXIES = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("::1"))


def forwarded(*values: str) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"x"), *((b"x-forwarded-for", value.encode()) for value in values)]


@pytest.mark.parametrize(
    ("peer", "values", "address"),
    [
        ("192.0.2.1", ["203.0.113.9"], "192.0.2.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("::ffff:10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["6.6.6.6, 203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["6.6.6.6", "203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["203.0.113.9, 10.2.2.2"], "203.0.113.9"),
        ("10.0.0.1", ["10.3.3.3, 10.2.2.2"], "10.3.3.3"),
        ("10.0.0.1", ["203.0.113.9, nonsense"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("::1", ["2001:db8::1"], "2001:db8::1"),
        ("", ["203.0.113.9"], ""),
    ],
)
def test_the_last_address_that_no_proxy_of_ours_has_is_the_clients(peer, values, address):
    assert client_address(peer, forwarded(*values), PROXIES) == address


@given(st.text(alphabet=st.characters(max_codepoint=255)))
def test_whatever_is_sent_the_address_is_one(value: str):
    headers = [(b"x-forwarded-for", value.encode("latin-1"))]
    ipaddress.ip_address(client_address("10.0.0.1", headers, PROXIES))


def test_without_named_proxies_nobody_is_believed():
    assert client_address("10.0.0.1", forwarded("203.0.113.9"), ()) == "10.0.0.1"
