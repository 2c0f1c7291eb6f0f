"""How a registry is reached."""

import pytest

from model_training.errors import RegistryUnavailable
from model_training.images.reach import Reach


@pytest.mark.parametrize(
    ("address", "scheme"),
    [
        ("127.0.0.1:5000", "http"),
        ("127.8.8.8", "http"),
        ("localhost:5000", "http"),
        ("[::1]:5000", "http"),
        ("registry.example.org", "https"),
        ("10.0.0.1:5000", "https"),
        ("0.0.0.0:5000", "https"),
        ("localhost.example.org", "https"),
        ("named.org", "http"),
        ("named.org:5000", "http"),
        ("sub.named.org", "https"),
        ("ported.org:5000", "http"),
        ("ported.org", "https"),
        ("ported.org:5001", "https"),
        ("[fd00::1]:5000", "http"),
        ("[fd00::1]", "http"),
        ("[fd00::2]", "https"),
    ],
)
def test_plain_http_only_where_it_is_said(address, scheme):
    reach = Reach(["named.org", "Ported.org:5000", "[fd00::1]"])
    assert str(reach.url(address, "/v2/")) == f"{scheme}://{address}/v2/"


def test_a_proxy_is_of_the_environment_that_is_given(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:1")
    url = Reach().url("registry.example.org", "/")
    assert Reach().proxy(url) is None
    assert Reach(environ={"HTTPS_PROXY": "http://b:2"}).proxy(url) == "http://b:2"
    with pytest.raises(RegistryUnavailable, match="the variable HTTPS_PROXY"):
        Reach(environ={"HTTPS_PROXY": "nonsense"}).proxy(url)
