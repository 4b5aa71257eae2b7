"""Requests to an HTTP service: authentication, time, retries, and answers that are read in time and never beyond a size.

Secrets are read when the first request is made and go into requests alone: messages, answers and what is frozen never hold them, also
where a service repeats them. A redirect to another host is not followed, since they would go along. Environment proxies are taken as
httpx takes them; a .netrc file is not read.
"""

from __future__ import annotations

import base64
import contextlib
import email.utils
import functools
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urljoin, urlsplit

from tasks.contract import secret_blocks
from tasks.contract.params import BadInput
from tasks.worlds.adapters.foreign_state import SourceDown, SourceFailed
from tasks.worlds.adapters.openapi_requests import Prepared
from tasks.worlds.adapters.placeholders import SHORTEST, spellings

if TYPE_CHECKING:
    import httpx

MOST_BYTES = 8 * 2**20
"""Bytes of an answer that are read; ours: far more than any model is shown."""
TRIES = 3
"""Times that a request is sent; ours."""
PROBE = 5.0
"""Seconds that a service is given to show that it lives; ours."""
PAUSE = 0.2
"""Seconds before the second try where the service names none; twice as many before the third; ours."""
REDIRECTS = 5
SERVICE = "cairn-service"
"""Host and port of a service that was started here, as answers have them."""
_PREFECT = "prefect:"
_MOVED = (301, 302, 303, 307, 308)
_LATER = (429, 503)
_PASSING = (502, 503, 504)


@dataclass(frozen=True)
class Reply:
    """An answer. kind: its content type, in lower case, without parameters. whole: all of it was read."""

    status: int
    kind: str
    charset: str
    content: bytes
    whole: bool

    def text(self) -> str:
        """As text, whatever bytes it holds."""
        try:
            return self.content.decode(self.charset, "replace")
        except LookupError:
            return self.content.decode("utf-8", "replace")


class Credentials:
    """Where secrets go, and where they are kept: {"bearer": "SHOP_TOKEN", "header X-Tenant": "prefect:tenant"}.

    A key is bearer, basic, "header NAME", "query NAME" or "cookie NAME"; a value names an environment variable, or a Prefect Secret
    block with "prefect:" before its name. Of basic it holds "user:password".
    """

    def __init__(self, auth: Mapping[str, str], where: str) -> None:
        self._auth, self._where = dict(auth), where
        for key, source in self._auth.items():
            kind, _, name = key.partition(" ")
            if not ((kind in ("bearer", "basic") and not name) or (kind in ("header", "query", "cookie") and name)):
                raise BadInput(f"{where}: auth: {key!r}: a key is bearer, basic, 'header NAME', 'query NAME' or 'cookie NAME'.")
            if not isinstance(source, str) or not (source.removeprefix(_PREFECT)).replace("_", "").replace("-", "").isalnum():
                raise BadInput(
                    f"{where}: auth[{key!r}] must name an environment variable, or a Prefect Secret block as 'prefect:NAME'; a secret "
                    "itself does not belong there."
                )

    def hidden(self) -> frozenset[tuple[str, str]]:
        """(place, lower name) of parameters that are sent by themselves, and of which no tool has an argument."""
        own = [key.partition(" ") for key in self._auth]
        return frozenset((place, name.lower()) for place, _, name in own if name)

    def check(self) -> None:
        """Raise BadInput for an environment variable that is not set. Blocks are looked for when the first request is made."""
        for key, source in self._auth.items():
            if not source.startswith(_PREFECT) and not os.environ.get(source, "").strip():
                raise BadInput(f"{self._where}: auth[{key!r}]: the environment variable {source} is not set.")

    @functools.cached_property
    def _secrets(self) -> dict[str, str]:
        self.check()
        return {
            key: secret_blocks.load(source.removeprefix(_PREFECT), f"{self._where}: auth[{key!r}]")
            if source.startswith(_PREFECT)
            else os.environ[source].strip()
            for key, source in self._auth.items()
        }

    def added(self, request: Prepared) -> tuple[dict[str, str], str]:
        """(headers, query) of a request, with the secrets in them."""
        headers, query = dict(request.headers), request.query
        for key, secret in self._secrets.items():
            kind, _, name = key.partition(" ")
            if kind == "bearer":
                headers["authorization"] = f"Bearer {secret}"
            elif kind == "basic":
                headers["authorization"] = f"Basic {base64.b64encode(secret.encode()).decode()}"
            elif kind == "header":
                headers[name] = secret
            elif kind == "query":
                query = "&".join(part for part in (query, f"{quote(name)}={quote(secret, safe='')}") if part)
            else:
                headers["cookie"] = "; ".join(part for part in (headers.get("cookie", ""), f"{name}={secret}") if part)
        return headers, query

    def without(self, content: bytes) -> bytes:
        """An answer without the secrets that a service may repeat; a short one stands there by chance."""
        for key, secret in self._secrets.items():
            forms = [secret]
            if key == "basic":
                forms += [base64.b64encode(secret.encode()).decode(), secret.partition(":")[2]]
            for spelled in (one for form in forms if len(form) >= SHORTEST for one in spellings(form)):
                content = content.replace(spelled.encode(), b"<secret>")
        return content

    def words(self) -> str:
        """What there is, for messages."""
        return ", ".join(f"{key} from {source}" for key, source in self._auth.items()) or "none (auth is not given)"


class Service:
    """One HTTP service. Usable from several threads, and in processes that were forked off. seat: its folder, of one that was started
    here. hide: takes out of a text what only that one was told."""

    def __init__(
        self, base_url: str, credentials: Credentials, headers: Mapping[str, str], seconds: float, seat: Path | None = None
    ) -> None:
        self.base_url, self.seat = base_url.rstrip("/"), seat
        self.hide: Callable[[str], Any] = str
        self.credentials = credentials
        self._headers, self._seconds = dict(headers), seconds
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    @property
    def where(self) -> str:
        """The url for messages: without the port of a service that was started here, which differs each time."""
        return self.base_url.replace(f":{self.port}", ":{port}") if self.seat is not None else self.base_url

    @property
    def port(self) -> str:
        """The port, as text; "" for that of the scheme."""
        return str(urlsplit(self.base_url).port or "")

    def _forget(self) -> None:
        self._client: httpx.Client | None = None
        self._lock = threading.Lock()

    def _opened(self) -> httpx.Client:
        import httpx

        with self._lock:
            if self._client is None:
                limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
                self._client = httpx.Client(limits=limits, follow_redirects=False, auth=_no_auth)
            return self._client

    def send(self, request: Prepared, repeatable: bool, seconds: float = 0.0) -> Reply:
        """The service's answer. repeatable: a read, sent again where that may help; any other is sent again only where the service says
        that it did not take it (429, 503) and when to come again. Raises SourceFailed when no answer comes in time, SourceDown when the
        service answers nothing at all."""
        import httpx

        self._opened()  # which takes its time once, and is none of the service's
        limit = seconds or self._seconds
        end, pause, what = time.monotonic() + limit, PAUSE, f"{request.verb} {self.where}{request.path}"
        for left in reversed(range(TRIES)):
            try:
                reply, wait = self._once(request, end)
            except (httpx.ConnectError, httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError) as error:
                if not repeatable or not left or time.monotonic() + pause > end:
                    kind = SourceDown if self._is_down() else SourceFailed
                    raise kind(f"{what}: {_reason(error)}. Start the service, or mend base_url.") from None
            except httpx.ConnectTimeout:
                raise SourceDown(f"{what}: took no connection within {limit:g} s. Start the service, or mend base_url.") from None
            except httpx.TimeoutException:
                raise SourceFailed(f"{what}: did not answer within {limit:g} s; it hangs, or call_seconds is too short.") from None
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise SourceFailed(f"{what}: {type(error).__name__}: cannot be sent, or its answer cannot be read.") from None
            else:
                later = reply.status in _LATER and wait is not None
                passing = repeatable and reply.status in (*_LATER, *_PASSING)
                pause = wait if wait is not None else pause
                if not left or not (later or passing) or time.monotonic() + pause > end:
                    if reply.status in _PASSING and self._is_down():
                        raise SourceDown(f"{what}: {reply.status}, and so for any request. Start the service, or mend base_url.")
                    return reply
            time.sleep(pause)
            pause *= 2
        raise AssertionError("the last try returns or raises")

    def _is_down(self) -> bool:
        """Whether it takes no connection, or whoever stands before it says so, asked several times: one that was started anew meanwhile
        is not down. One that was started here is somebody else's to look at, who can start another."""
        import httpx

        for pause in (0, PAUSE, 2 * PAUSE) if self.seat is None else ():
            time.sleep(pause)
            with contextlib.suppress(httpx.NetworkError, httpx.ProtocolError, httpx.ConnectTimeout):
                try:
                    reply, _ = self._once(Prepared("GET", "/", "", {}, None), time.monotonic() + PROBE)
                except (httpx.TimeoutException, SourceFailed):  # it is there, and slow, or leads elsewhere
                    return False
                if reply.status not in _PASSING:
                    return False
        return self.seat is None

    def _once(self, request: Prepared, end: float) -> tuple[Reply, float | None]:
        """One answer, and how many seconds to wait before the next try, if it says so."""
        import httpx

        headers, query = self.credentials.added(request)
        headers = {**self._headers, **headers}
        url = f"{self.base_url}{request.path}{'?' if query else ''}{query}"
        for _ in range(REDIRECTS):
            patience = max(end - time.monotonic(), 0.001)
            with self._opened().stream(
                request.verb, url, headers=headers, content=request.content, timeout=httpx.Timeout(patience)
            ) as response:
                target = response.headers.get("location")
                if response.status_code in _MOVED and target:
                    if response.status_code == 303 or (response.status_code in (301, 302) and request.verb not in ("GET", "HEAD")):
                        self._refuse_redirect(request, "answers with a page to be read elsewhere")
                    url = self._same_host(request, url, target)
                    continue
                content, whole = b"", True
                for piece in response.iter_bytes():
                    content += piece
                    if len(content) > MOST_BYTES:
                        content, whole = content[:MOST_BYTES], False
                        break
                    if time.monotonic() > end:
                        raise httpx.ReadTimeout("the answer takes too long")
            kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
            reply = Reply(response.status_code, kind, response.encoding or "utf-8", self._hidden(content), whole)
            return reply, _wait(response.headers.get("retry-after"))
        self._refuse_redirect(request, f"leads from redirect to redirect, more than {REDIRECTS} times")
        raise AssertionError("refused above")

    def _hidden(self, content: bytes) -> bytes:
        """An answer without secrets; of a service that was started here also without what its environment holds, the path of its folder
        and its port, which differ each time."""
        content = self.credentials.without(content)
        if self.seat is None:
            return content
        for host in ("127.0.0.1", "localhost"):
            content = content.replace(f"{host}:{self.port}".encode(), SERVICE.encode())
        return str(self.hide(content.decode("utf-8", "surrogateescape"))).encode("utf-8", "surrogateescape")

    def _same_host(self, request: Prepared, url: str, target: str) -> str:
        new = urljoin(url, target)
        here, there = urlsplit(url), urlsplit(new)
        if (here.scheme, here.netloc) != (there.scheme, there.netloc):
            self._refuse_redirect(
                request, f"leads to {there.scheme}://{there.netloc.rpartition('@')[2]}, and what it is sent, secrets too, stays here"
            )
        return new

    def _refuse_redirect(self, request: Prepared, why: str) -> None:
        raise SourceFailed(f"{request.verb} {self.where}{request.path}: {why}. Set base_url to where the service is.")


def _no_auth(request: Any) -> Any:
    """Nothing is added: without it httpx would look into .netrc."""
    return request


def _reason(error: Exception) -> str:
    text = str(error).lower()
    if "refused" in text:
        return "the connection was refused; nothing listens there"
    if "name or service" in text or "nodename" in text or "temporary failure in name" in text:
        return "there is no host of that name"
    if "certificate" in text or "ssl" in text:
        return "its certificate is not trusted, or it speaks no TLS"
    return "the connection was closed before an answer came"


def _wait(header: str | None) -> float | None:
    """Seconds of a Retry-After header, which names seconds or a date."""
    if not header:
        return None
    if header.strip().isdecimal():
        return float(header)
    try:
        return max(email.utils.parsedate_to_datetime(header).timestamp() - time.time(), 0.0)
    except (ValueError, TypeError):
        return None
