"""As much of a browser as a login needs: cookies, redirects, and forms that are filled in."""

from html.parser import HTMLParser
from http.cookiejar import CookieJar, DefaultCookiePolicy
from urllib.parse import urljoin

import httpx2


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.found.append((given.get("action", ""), {}))
        elif tag in ("input", "button") and self.found and given.get("name"):
            self.found[-1][1].setdefault(given["name"], given.get("value", ""))


class Browser:
    """One person's."""

    def __init__(self) -> None:
        # Loopback is as good as TLS to a browser, which sends its secure cookies there, too.
        cookies = CookieJar(DefaultCookiePolicy(secure_protocols=("https", "http")))
        self._http = httpx2.Client(
            follow_redirects=True, trust_env=False, timeout=30, cookies=cookies
        )
        self.page = httpx2.Response(204)

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def open(self, url: str) -> None:
        """Go to a page."""
        self._show(self._http.get(url))

    def submit(self, without: tuple[str, ...] = (), **filled: str) -> None:
        """Send the first form of the page; what is not filled in stays as the page has it."""
        action, fields = self._forms()[0]
        sent = {name: value for name, value in fields.items() if name not in without} | filled
        self._show(self._http.post(urljoin(str(self.page.url), action), data=sent))

    def asks_for(self, name: str) -> bool:
        """Whether the first form has such a field."""
        forms = self._forms()
        return bool(forms) and name in forms[0][1]

    def _forms(self) -> list[tuple[str, dict[str, str]]]:
        parser = _Forms()
        parser.feed(self.page.text)
        return parser.found

    def _show(self, page: httpx2.Response) -> None:
        assert page.status_code < 500, page.text
        self.page = page
