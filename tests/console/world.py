"""A console over real HTTP, with accounts, and a client that behaves as a browser does."""

import contextlib
import http.client
import re
import shutil
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urlencode

import yaml
from conftest import wait_until
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from orthanc_ledger.config import Config, Console, Party, load_party
from orthanc_ledger.ledger.encrypted_key import encrypted
from orthanc_ledger.ledger.identity import load_identity
from orthanc_ledger.web.console.accounts import Accounts, Role
from orthanc_ledger.web.console.house import open_house
from orthanc_ledger.web.console.server import Server

PASSWORD = "a word, and another word"
FORM = "application/x-www-form-urlencoded"


@dataclass
class Answer:
    """An HTTP answer."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def html(self) -> str:
        """The page as it was sent."""
        return self.body.decode()

    @property
    def text(self) -> str:
        """What a person reads of the page, its spaces as one."""
        reader = _Reader()
        reader.feed(self.html)
        return " ".join("".join(reader.texts).split())

    def hidden(self, name: str) -> str:
        """The value of a hidden field."""
        found = re.search(rf'<input type="hidden" name="{name}" value="([^"]*)">', self.html)
        assert found is not None, f"no hidden field {name}: {self.text}"
        return found[1]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_endtag(self, tag: str) -> None:
        self.texts.append(" ")


@dataclass
class Client:
    """Somebody's browser: one cookie, and the headers that browsers send by themselves. ``address``: where it runs."""

    port: int
    secure: ssl.SSLContext | None = None
    cookie: str | None = None
    token: str = ""
    host: str = ""
    address: str = "127.0.0.1"

    def __post_init__(self) -> None:
        self.host = self.host or f"127.0.0.1:{self.port}"

    @property
    def origin(self) -> str:
        return f"{'https' if self.secure else 'http'}://{self.host}"

    def send(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str | None] | None = None
    ) -> Answer:
        """One request on a connection of its own; a header that is None is left out."""
        given: dict[str, str | None] = {"Host": self.host, "Sec-Fetch-Site": "same-origin", "Cookie": self.cookie}
        if method == "POST":
            given |= {"Origin": self.origin, "Content-Type": FORM}
        given |= headers or {}
        with contextlib.closing(self.connect()) as connection:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in given.items():
                if value is not None:
                    connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            found = Answer(answer.status, dict(answer.getheaders()), answer.read())
        if "Set-Cookie" in found.headers:
            self.cookie = found.headers["Set-Cookie"].partition(";")[0]
        if (token := re.search(r'name="token" value="([^"]+)"', found.body.decode(errors="replace"))) is not None:
            self.token = token[1]
        return found

    def connect(self) -> http.client.HTTPConnection:
        if self.secure is None:
            return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20, source_address=(self.address, 0))
        return http.client.HTTPSConnection("127.0.0.1", self.port, timeout=20, context=self.secure)

    def get(self, path: str, **query: str) -> Answer:
        return self.send("GET", f"{path}?{urlencode(query)}" if query else path)

    def post(self, path: str, headers: Mapping[str, str | None] | None = None, **fields: str) -> Answer:
        """A form, with the session's token unless it is given."""
        return self.send("POST", path, urlencode({"token": self.token, **fields}).encode(), headers)

    def follow(self, answer: Answer) -> Answer:
        """The page that an answer leads to."""
        assert answer.status == 303, answer.text
        return self.get(answer.headers["Location"])

    def log_in(self, name: str, password: str = PASSWORD) -> Answer:
        """Log in and see the first page."""
        return self.follow(self.post("/login", name=name, password=password))


@dataclass
class Desk:
    """A console that runs. ``later_s``: how far its clock for sessions is ahead."""

    port: int
    accounts: Accounts
    later_s: float = 0.0
    secure: ssl.SSLContext | None = None
    stop: threading.Event = field(default_factory=threading.Event)

    def client(self, name: str | None = None) -> Client:
        """A browser; logged in when it is somebody's."""
        client = Client(self.port, self.secure)
        if name is not None:
            client.log_in(name)
        return client

    def account(self, name: str, *roles: Role, identity: Path | None = None) -> None:
        self.accounts.add(name, roles, PASSWORD, identity)


@contextlib.contextmanager
def opened(config: Config | Party, console: Console, secure: ssl.SSLContext | None = None) -> Iterator[Desk]:
    """Serve the console of a configuration while the block runs."""
    desk = Desk(0, Accounts(console.accounts), secure=secure)
    server = Server(console, open_house(config), monotonic=lambda: time.monotonic() + desk.later_s)
    thread = threading.Thread(target=server.run, args=(desk.stop,))
    thread.start()
    try:
        wait_until(lambda: server.port, 20, "the console listens")
        desk.port = server.port or 0
        yield desk
    finally:
        desk.stop.set()
        thread.join(20)
        assert not thread.is_alive()


def party_of(node: Config, who: str, folder: Path) -> Party:
    """The configuration of custodian or research centre, of a trial with all organisations' keys."""
    (folder / "data").mkdir(parents=True)
    path, organisation = folder / "party.yaml", node.data_dir.parent / "organisations" / who
    scheme, _, location = node.ledger.partition(":")
    keys = {
        "organisation": load_identity(organisation / "identities" / "node").msp_id,
        "ae_title": "KEEPER",
        "data_dir": "data",
        "identity": str(organisation / "identities" / "node"),
        "content": "local:objects",
        "ledger": f"fabric:{organisation / Path(location).name}" if scheme == "fabric" else node.ledger,
    }
    path.write_text(yaml.safe_dump(keys))
    return load_party(path)


def key_of(organisation: Path, name: str, passphrase: str) -> Path:
    """The identity of the organisation's person, under another name, its key under a passphrase."""
    folder = organisation / "identities" / name
    shutil.copytree(organisation / "identities" / "person", folder)
    [key] = (folder / "keystore").iterdir()
    plain = load_pem_private_key(key.read_bytes(), None)
    assert isinstance(plain, ec.EllipticCurvePrivateKey)
    key.write_bytes(encrypted(plain, passphrase.encode()))
    return folder
