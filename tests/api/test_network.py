"""What makes the service fit for a network: TLS, other origins, headers, addresses, shares."""

import asyncio
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from tests.api.lab import lab
from tests.api.test_access import ACCESS, serving, user, write_files
from tests.waiting import until

pytestmark = pytest.mark.anyio
PAGE = "https://dash.example.org"


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    argv = [
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
        "-days", "2", "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1",
        "-keyout", str(key), "-out", str(certificate),
    ]  # fmt: skip
    subprocess.run(argv, check=True, capture_output=True)
    return certificate, key


def test_https_is_spoken_and_a_renewed_certificate_taken(tmp_path: Path):
    write_files(tmp_path)
    old, key = make_certificate(tmp_path, "old")
    with serving(tmp_path, "--tls-certificate", str(old), "--tls-key", str(key)) as service:
        assert service.url.startswith("https://127.0.0.1:")
        assert asked(service.url, old) == 200
        with pytest.raises(httpx2.HTTPError):
            httpx2.get(service.url.replace("https", "http") + "/livez")

        new, new_key = make_certificate(tmp_path, "new")
        before = tmp_path / "before.pem"
        before.write_bytes(old.read_bytes())
        old.write_bytes(new.read_bytes())
        log = tmp_path / "server.log"
        eventually(lambda: "the renewed certificate is not used" in log.read_text())
        assert asked(service.url, before) == 200  # in the middle of it
        new_key.replace(key)
        eventually(lambda: asked(service.url, new) == 200)


def eventually(is_so: Callable[[], bool]) -> None:
    asyncio.run(until(is_so, 30))


def asked(url: str, ca: Path) -> int:
    """The status of an answer whose certificate is this one; 0 if it is another."""
    context = ssl.create_default_context(cafile=str(ca))
    token = {"Authorization": f"Bearer {user('lea')}"}
    try:
        answer = httpx2.get(f"{url}/training-jobs", verify=context, headers=token)
    except httpx2.ConnectError:
        return 0
    assert answer.headers["strict-transport-security"] == "max-age=31536000"
    assert "server" not in answer.headers
    return answer.status_code


def test_files_that_do_not_fit_end_the_start(tmp_path: Path):
    write_files(tmp_path, ACCESS)
    one, _ = make_certificate(tmp_path, "one")
    _, other_key = make_certificate(tmp_path, "other")
    with (
        pytest.raises(AssertionError, match=r"tls_certificate: .* no certificate and key of each"),
        serving(tmp_path, "--tls-certificate", str(one), "--tls-key", str(other_key)),
    ):
        pass


async def test_a_page_of_a_named_origin_may_ask_and_no_other(tmp_path: Path):
    async with lab(tmp_path, cors_origins=(PAGE,)) as one:
        answer = await one.client.get("/training-jobs", headers={"Origin": PAGE})
        assert answer.status_code == 200
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert answer.headers["vary"] == "Origin"
        assert "access-control-allow-credentials" not in answer.headers

        preflight = {"Origin": PAGE, "Access-Control-Request-Method": "DELETE"}
        allowed = await one.client.options("/training-jobs/x", headers=preflight)
        assert allowed.status_code == 204
        assert "DELETE" in allowed.headers["access-control-allow-methods"]
        assert "Authorization" in allowed.headers["access-control-allow-headers"]

        for origin in ("https://evil.example", f"{PAGE}.evil.example", "null"):
            for method in ("GET", "OPTIONS"):
                headers = {**preflight, "Origin": origin}
                refused = await one.client.request(method, "/training-jobs", headers=headers)
                assert refused.status_code == 403
                assert "access-control-allow-origin" not in refused.headers


async def test_answers_are_kept_by_nobody_and_framed_nowhere(tmp_path: Path):
    async with lab(tmp_path) as one:
        for path in ("/training-jobs", "/nothing", "/livez", "/docs"):
            headers = (await one.client.get(path)).headers
            assert headers["cache-control"] == "no-store"
            assert headers["x-frame-options"] == "DENY"
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["referrer-policy"] == "no-referrer"


def test_an_address_is_taken_from_a_named_proxy_alone(tmp_path: Path):
    write_files(tmp_path)
    for proxies, client in (("192.0.2.1", "127.0.0.1"), ("127.0.0.1", "203.0.113.9")):
        config = tmp_path / "config.toml"
        config.write_text(f'trusted_proxies = ["{proxies}"]\n')
        with serving(tmp_path, "--config", str(config)) as service:
            headers = {"X-Forwarded-For": "6.6.6.6, 203.0.113.9", "X-Request-ID": client}
            service.ask("GET", "/training-jobs", user("lea"), headers=headers)
            [line] = [line for line in service.audit() if line["request_id"] == client][:1]
            assert line["client"] == client


def test_who_asks_for_more_than_their_share_is_told_to_wait(tmp_path: Path):
    write_files(tmp_path)
    config = tmp_path / "config.toml"
    config.write_text("principal_rate = 1\n")
    with serving(tmp_path, "--config", str(config)) as service:
        lea, kim = user("lea"), user("kim")
        answers = [service.ask("GET", "/training-jobs", lea) for _ in range(14)]
        assert [answer.status_code for answer in answers[:10]] == [200] * 10
        refused = answers[-1]
        assert refused.status_code == 429
        assert refused.json()["type"] == "/problems/too-many-requests"
        assert int(refused.headers["retry-after"]) >= 1
        assert service.ask("GET", "/training-jobs", kim).status_code == 200
