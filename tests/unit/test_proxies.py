"""Which proxy leads to a host."""

import pytest

from model_training.proxies import checked_proxy, proxy_to

PROXY = "http://lea:s3cret@proxy:3128"


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1:5000/",
        "https://127.9.9.9/",
        "https://[::1]:5000/",
        "https://localhost/",
        "https://10.1.2.3/",
        "https://[fd00::1]/",
        "https://inside/",
        "https://a.inside:8443/",
        "https://star.example.org/",
        "https://ported.example.org:5000/",
        "https://default.example.org/",
        "https://capitals.example.org/",
    ],
)
def test_what_goes_without(url):
    listed = (
        " 10.0.0.0/8, fd00::/8,.inside,,*.star.example.org,ported.example.org:5000,"
        "default.example.org:443,CAPITALS.example.org"
    )
    assert proxy_to(url, {"HTTPS_PROXY": PROXY, "NO_PROXY": listed}) is None
    assert proxy_to(url, {"HTTPS_PROXY": PROXY, "no_proxy": listed, "NO_PROXY": ""}) is None


@pytest.mark.parametrize(
    "url",
    [
        "https://11.1.2.3/",
        "https://ainside/",
        "https://inside.example.org/",
        "https://ported.example.org/",
        "https://ported.example.org:5001/",
        "https://localhost.example.org/",
    ],
)
def test_what_goes_through_it(url):
    listed = "10.0.0.0/8,inside,ported.example.org:5000"
    assert proxy_to(url, {"HTTPS_PROXY": PROXY, "NO_PROXY": listed}) == PROXY


def test_the_variable_is_that_of_the_scheme():
    both = {"https_proxy": "http://a:1", "HTTPS_PROXY": "http://b:1", "HTTP_PROXY": "http://c:1"}
    assert proxy_to("https://x.org/", both) == "http://a:1"
    assert proxy_to("http://x.org/", both) == "http://c:1"
    assert proxy_to("https://x.org/", {"HTTP_PROXY": PROXY}) is None
    assert proxy_to("https://x.org/", {"HTTPS_PROXY": PROXY, "NO_PROXY": "*"}) is None
    assert proxy_to("https://x.org/", {"HTTPS_PROXY": ""}) is None


@pytest.mark.parametrize(
    "proxy",
    ["socks5://s3cret@x:1", "s3cret:3128", "http://", "http://s3cret:99999", "http://[s3cret"],
)
def test_a_proxy_of_another_kind_is_named_by_its_source(proxy):
    with pytest.raises(ValueError, match="the variable HTTPS_PROXY names no HTTP proxy") as found:
        proxy_to("https://x.org/", {"HTTPS_PROXY": proxy})
    assert "s3cret" not in str(found.value)
    with pytest.raises(ValueError, match=r"^proxy-url names no HTTP proxy"):
        checked_proxy(proxy, "proxy-url")
