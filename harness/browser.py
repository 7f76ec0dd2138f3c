"""What a person does: open pages, fill in forms, read e-mail, follow a link."""

import email
import email.policy
import http.client
import re
import urllib.parse
from html.parser import HTMLParser
from http.cookies import SimpleCookie
from pathlib import Path

from .processes import Failed, wait_until


class Page:
    """One response: `status`, `url` (path and query), `headers`, `text`."""

    def __init__(self, status, url, headers, text):
        self.status = status
        self.url = url
        self.headers = headers
        self.text = text

    def hidden_fields(self):
        """Return {name: value} of the page's hidden inputs, the CSRF token among them."""
        parser = _HiddenInputs()
        parser.feed(self.text)
        return parser.found

    def errors(self):
        """Return what the page's form refuses, in the page's words."""
        lists = re.findall(r'<ul class="errorlist.*?</ul>', self.text, re.DOTALL)
        return " ".join(re.sub(r"<[^>]+>", " ", " ".join(lists)).split())


class _HiddenInputs(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = {}

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        if tag == "input" and values.get("type") == "hidden" and "name" in values:
            self.found[values["name"]] = values.get("value", "")


class Browser:
    """A browser and the platform's proxy in one: HTTPS outside, plain HTTP to `port` on loopback.

    `host` is the service's public name. With `https=False` there is no proxy, as under DEBUG.
    """

    def __init__(self, port, host, *, https=True):
        self.port = port
        self.host = host
        self.https = https
        self.cookies = {}

    @property
    def origin(self):
        """Scheme and host as people see them."""
        return f"{'https' if self.https else 'http'}://{self.host}"

    def get(self, path, **fields):
        """GET; redirects are followed. `path` may be a full URL of this service."""
        return self._follow(self._ask("GET", self._path(path), None, fields))

    def post(self, path, **fields):
        """Open the page, fill in its form and send it, hidden fields included."""
        page = self.get(path)
        if page.status != 200:
            raise Failed(f"GET {page.url} was answered with {page.status}:\n{page.text[:500]}")
        body = urllib.parse.urlencode(page.hidden_fields() | fields)
        return self._follow(self._ask("POST", page.url, body, {}))

    def register(self, username, address, password):
        """Register through the form and return the page where the user ends up."""
        return self.post(
            "/accounts/register/",
            username=username,
            email=address,
            password1=password,
            password2=password,
        )

    def log_in(self, username, password):
        """Log in through the form and return whether there is a session afterwards."""
        before = self.cookies.get("sessionid")
        self.post("/accounts/login/", username=username, password=password)
        return self.cookies.get("sessionid") not in (None, "", before)

    def _follow(self, page):
        for _ in range(10):
            if page.status not in (301, 302, 303, 307, 308):
                return page
            target = urllib.parse.urljoin(self.origin + page.url, page.headers["Location"])
            page = self._ask("GET", self._path(target), None, {})
        raise Failed(f"{page.url} redirects without end")

    def _path(self, url):
        parts = urllib.parse.urlsplit(url)
        if parts.netloc and f"{parts.scheme}://{parts.netloc}" != self.origin:
            raise Failed(f"{url} does not belong to {self.origin}")
        return urllib.parse.urlunsplit(("", "", parts.path, parts.query, ""))

    def _ask(self, method, path, body, query):
        if query:
            path += "?" + urllib.parse.urlencode(query)
        headers = {"Host": self.host, "Referer": self.origin + path}
        if self.https:
            headers["X-Forwarded-Proto"] = "https"
        if self.cookies:
            headers["Cookie"] = "; ".join(f"{name}={v}" for name, v in self.cookies.items())
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            text = answer.read().decode(errors="replace")
        except OSError as error:
            raise Failed(f"{method} {path}: {error}") from None
        finally:
            connection.close()
        for line in answer.headers.get_all("Set-Cookie", []):
            self._keep(line)
        return Page(answer.status, path, answer.headers, text)

    def _keep(self, line):
        for name, morsel in SimpleCookie(line).items():
            if morsel["secure"] and not self.https:
                continue
            if morsel["max-age"] == "0":
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = morsel.value


class Mailbox:
    """A folder that Django's file e-mail backend writes to."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    @property
    def url(self):
        """The folder's EMAIL_URL, with four slashes: an absolute path begins with the fourth."""
        return f"filemail:///{self.folder}"

    def messages(self, to=None):
        """Return every message, oldest first; with `to`, only those to that address."""
        found = []
        for path in sorted(self.folder.glob("*.log")):
            # Django may still be writing what follows the last line of dashes.
            for blob in re.split(rb"^-{79}\n", path.read_bytes(), flags=re.MULTILINE)[:-1]:
                message = email.message_from_bytes(blob, policy=email.policy.default)
                if to is None or to in str(message["To"]):
                    found.append(message)
        return found

    def wait(self, to, seconds):
        """Return the first message to that address. Raises Failed if none comes in `seconds`."""
        return wait_until(lambda: self.messages(to), seconds, f"e-mail to {to}")[0]


def verification_link(message):
    """Return the link in a verification e-mail."""
    found = re.search(r"https?://\S+/accounts/verify/[^\s<>\"]+", message.get_content())
    if not found:
        raise Failed(f"no verification link in:\n{message.get_content()}")
    return found.group()
