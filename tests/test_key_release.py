"""Keys of a release: who gets them over HTTPS, and who does not."""

import http.client
import json
import logging
import socket
import ssl
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT, free_ports, wait_until
from cryptography.hazmat.primitives.serialization import Encoding
from gate_world import DAY_S, make_world
from key_world import PRIVATE, KeyWorld, make_https, served

from orthanc_ledger import merkle, tokens
from orthanc_ledger.config import load
from orthanc_ledger.content import cbor
from orthanc_ledger.courier import ROLLED_BACK
from orthanc_ledger.errors import ConfigError, ServiceAway
from orthanc_ledger.key_client import Denied, KeyClient
from orthanc_ledger.key_file import KeyFile
from orthanc_ledger.ledger import all_rows
from orthanc_ledger.ledger.identity import (
    create_organisation,
    issue,
    issue_server,
    load_identity,
    parse_certificate,
    read_certificate,
    serial_of,
    tls_files,
)
from orthanc_ledger.recipient_key import PrivateKey
from orthanc_ledger.serve import children
from orthanc_ledger.setup_node import CONFIG_NAME
from orthanc_ledger.web import serving
from orthanc_ledger.web.application import LARGEST_CALL
from orthanc_ledger.web.server import EACH, Server


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KeyWorld]:
    """For tests that leave study, nodes and certificates as they are; each makes its own request."""
    with served(make_world(tmp_path_factory.mktemp("world"))) as key_world:
        yield key_world


@pytest.fixture
def own(tmp_path: Path) -> Iterator[KeyWorld]:
    with served(make_world(tmp_path)) as key_world:
        yield key_world


def denials(world: KeyWorld) -> list[tuple[str, str]]:
    """Whom the ledger was told of as refused, and why."""
    world.told()
    events = all_rows(world.world.ledger("owner"), "Audit", {})
    calls = [event["args"] for event in events if event["function"] == "LogDenials"]
    return [(call["peer"]["aeTitle"], call["reason"]) for call in calls for _ in range(call["count"])]


def denied(world: KeyWorld, request: bytes, why: str, **ask: Any) -> None:
    with pytest.raises(Denied, match=f"refused: {why}$"):
        world.ask(request, **ask)


def test_an_approved_research_centre_gets_the_keys_of_what_was_released_and_no_more(shared: KeyWorld) -> None:
    world = shared.world
    request = shared.request()
    file = KeyFile.decode(shared.ask(request))
    opened = file.open(PRIVATE)
    k_study = world.node.keyring.ensure_study(world.study_uid).k_study
    instances = sorted(tokens.instance_token(k_study, sop_uid) for sop_uid in world.sop_uids)
    assert (opened.request, opened.study) == (request, shared.study)
    assert [row.instance for row in opened.instances] == instances
    shared.told()
    release, outcome = world.logged()[-1]
    assert (release["instancesRoot"], release["count"]) == (merkle.root(instances), 3)
    assert (outcome["release"], outcome["sent"], outcome["withheld"]) == (file.release, 3, 0)
    for row in opened.instances:
        record, key_id = world.node.manifests.record(row.manifest, shared.study, row.instance)
        batch = world.node.keyring.batch_key(key_id)
        assert (row.object, row.keys) == (record.object, tokens.object_keys(batch, row.instance))
        assert batch not in file.encode()


def test_the_node_that_released_signs(shared: KeyWorld) -> None:
    file = KeyFile.decode(shared.ask(shared.request()))
    assert file.certificate == load_identity(shared.world.node.config.identity).certificate
    shared.told()
    release, _ = shared.world.logged()[-1]
    assert release["by"]["serial"] == serial_of(parse_certificate(file.certificate))


def test_each_call_is_a_release_of_its_own(shared: KeyWorld) -> None:
    request = shared.request()
    first, second = KeyFile.decode(shared.ask(request)), KeyFile.decode(shared.ask(request))
    assert first.release != second.release
    assert first.open(PRIVATE) == second.open(PRIVATE)


def test_only_the_classes_asked_for_are_released(shared: KeyWorld) -> None:
    request = shared.request(sopClasses=["1.2.840.10008.5.1.4.1.1.2"])
    denied(shared, request, "no approval")


@pytest.mark.parametrize("roles", [(), ("owner",), ("custodian",)])
def test_without_both_approvals_no_key_is_given(shared: KeyWorld, roles: tuple[str, ...]) -> None:
    request = shared.world.request(publicKeyDigest=PRIVATE.public.digest)
    shared.world.approve(request, *roles)
    before = len(denials(shared))
    denied(shared, request, "no approval")
    assert denials(shared)[before:] == [("RESEARCH1", "no approval")]


def test_another_studys_keys_are_not_in_a_requests_reach(shared: KeyWorld) -> None:
    token = shared.world.node.keyring.ensure_study(shared.world.add_study(7)).token
    denied(shared, shared.request(), "no approval", study=token)
    denied(shared, shared.request(), "no approval", study=b"unheld studytokn"[:16])


def test_a_request_that_is_not_there_is_as_anothers(shared: KeyWorld) -> None:
    denied(shared, b"n" * 32, "no approval")
    other = shared.client(shared.identity("custodian", "person"))
    denied(shared, shared.request(), "no approval", client=other)
    with pytest.raises(Denied, match=r"no approval$"):
        other.studies(shared.request())


def test_a_request_without_a_public_key_gets_a_clear_refusal(shared: KeyWorld) -> None:
    denied(shared, shared.request(publicKeyDigest=None), "request names no public key")


def test_another_public_key_than_the_requests_gets_nothing(shared: KeyWorld) -> None:
    other = PrivateKey(b"o" * 32).public
    with pytest.raises(Denied, match=r"public key is not the request's$"):
        shared.client().keys(shared.request(), shared.study, other.raw)


def test_the_studies_of_a_request_are_listed_as_far_as_they_are_held(shared: KeyWorld) -> None:
    request = shared.request(studies=[shared.study, b"u" * 16])
    assert shared.client().studies(request) == [shared.study]
    with pytest.raises(Denied, match=r"no approval$"):
        shared.client().studies(shared.world.request())


def test_a_datasets_studies_can_be_asked_for(own: KeyWorld) -> None:
    dataset = own.world.register(own.world.study_uid, own.world.add_study(9))
    request = own.request(**dataset)
    studies = own.client().studies(request)
    assert (len(studies), own.study in studies) == (2, True)
    assert KeyFile.decode(own.ask(request)).open(PRIVATE).study == own.study


class TestWhatWasTakenBack:
    """Each of these had its keys the moment before."""

    @pytest.fixture
    def request_id(self, own: KeyWorld) -> bytes:
        request = own.request()
        own.ask(request)
        return request

    def refused(self, own: KeyWorld, request: bytes, why: str) -> None:
        denied(own, request, why)
        assert denials(own) == [("RESEARCH1", why)]
        assert len(own.world.logged()) == 1

    def test_revoked(self, own: KeyWorld, request_id: bytes) -> None:
        own.world.ledger("custodian").submit("Revoke", {"id": request_id, "reason": "completed"})
        self.refused(own, request_id, "no approval")

    def test_expired(self, own: KeyWorld, request_id: bytes) -> None:
        own.world.later_s = 30 * DAY_S
        self.refused(own, request_id, "approval expired")
        with pytest.raises(Denied, match=r"approval expired$"):
            own.client().studies(request_id)

    def test_node_revoked(self, own: KeyWorld, request_id: bytes) -> None:
        node = {"organisation": "ResearchMSP", "aeTitle": "RESEARCH1"}
        own.world.ledger("custodian").submit("RevokeNode", {"node": node})
        self.refused(own, request_id, "no approval")

    def test_withdrawn(self, own: KeyWorld, request_id: bytes) -> None:
        own.world.ledger("owner").submit("Withdraw", {"study": own.study, "reason": "113039"}, b"n" * 16)
        self.refused(own, request_id, "withdrawn")

    def test_flagged(self, own: KeyWorld, request_id: bytes) -> None:
        world = own.world
        for instance in world.node.index.select(studies=[world.study_uid]):
            world.node.library.report(instance)
        own.told()
        self.refused(own, request_id, "withheld: integrity")

    def test_erasure_requested(self, own: KeyWorld, request_id: bytes) -> None:
        own.world.ledger("owner").submit("RequestErase", {"study": own.study})
        self.refused(own, request_id, "withdrawn")

    def test_not_confirmed_as_stored(self, own: KeyWorld, request_id: bytes) -> None:
        world = own.world
        policy = {**world.ledger("owner").query("GetPolicy", {}), "require_stored": True}
        policy = {name: value for name, value in policy.items() if name != "version"}
        proposal = world.ledger("owner").submit("ProposePolicy", {"policy": policy}, b"p" * 16).result["id"]
        world.ledger("custodian").submit("ConfirmPolicy", {"id": proposal})
        self.refused(own, request_id, "no approval")

    def test_one_object_withdrawn_leaves_the_others_keys(self, own: KeyWorld, request_id: bytes) -> None:
        gone = tokens.instance_token(
            own.world.node.keyring.ensure_study(own.world.study_uid).k_study, own.world.sop_uids[0]
        )
        args = {"study": own.study, "instances": [gone], "reason": "113039"}
        own.world.ledger("owner").submit("Withdraw", args, b"n" * 16)
        instances = [row.instance for row in KeyFile.decode(own.ask(request_id)).open(PRIVATE).instances]
        assert (len(instances), gone in instances) == (2, False)

    def test_ledger_rolled_back(self, own: KeyWorld, request_id: bytes) -> None:
        own.world.node.outbox.alarm(ROLLED_BACK, "", "rolled back")
        with pytest.raises(ServiceAway, match="ledger unavailable"):
            own.ask(request_id)

    def test_ledger_away(self, own: KeyWorld, request_id: bytes) -> None:
        path = Path(own.world.node.config.ledger.removeprefix("embedded:"))
        path.rename(path.with_suffix(".away"))
        with pytest.raises(ServiceAway, match="ledger unavailable"):
            own.ask(request_id)
        path.with_suffix(".away").rename(path)
        assert own.ask(request_id)

    def test_content_store_away(self, own: KeyWorld, request_id: bytes) -> None:
        folder = Path(own.world.node.config.content.removeprefix("local:"))
        folder.rename(folder.with_name("away"))
        with pytest.raises(ServiceAway, match="a service of this node is away"):
            own.ask(request_id)
        folder.with_name("away").rename(folder)
        assert own.ask(request_id)


class TestWhoCalls:
    """TLS and certificates."""

    def test_a_foreign_ca_is_not_let_in(self, shared: KeyWorld, tmp_path: Path) -> None:
        create_organisation(tmp_path / "foreign", "ResearchMSP")
        foreign = issue(tmp_path / "foreign", "node", "node")
        with pytest.raises((ConfigError, ServiceAway), match="does not accept this identity's certificate"):
            shared.ask(shared.request(), client=shared.client(foreign))

    def test_no_certificate_is_not_let_in(self, shared: KeyWorld) -> None:
        with tls(shared, None) as connection, suppress(ssl.SSLError, ConnectionError):
            connection.sendall(b"POST /v1/keys HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
            assert connection.recv(1) == b""

    def test_tls_1_2_is_not_spoken(self, shared: KeyWorld) -> None:
        with pytest.raises(ssl.SSLError):
            tls(shared, shared.identity(), ssl.TLSVersion.TLSv1_2)

    def test_no_http_in_clear(self, shared: KeyWorld) -> None:
        with socket.create_connection(address(shared), 10) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert not connection.recv(1000).startswith(b"HTTP")

    def test_a_revoked_certificate_gets_nothing(self, own: KeyWorld) -> None:
        request = own.request()
        identity = issue(own.organisation("research"), "second", "node")
        own.ask(request, client=own.client(identity))
        serial = serial_of(read_certificate(tls_files(identity)[0]))
        own.world.ledger("research").submit("RevokeCertificate", {"serial": serial})
        denied(own, request, "certificate not accepted", client=own.client(identity))
        own.ask(request)

    def test_an_expired_certificate_gets_nothing(self, own: KeyWorld) -> None:
        request = own.request()
        identity = issue(own.organisation("research"), "second", "node", days=2)
        own.ask(request, client=own.client(identity))
        own.world.later_s = 3 * DAY_S
        denied(own, request, "certificate not accepted", client=own.client(identity))

    def test_a_servers_certificate_is_nobodys_on_the_ledger(self, shared: KeyWorld, tmp_path: Path) -> None:
        certificate, key = issue_server(shared.organisation("research"), "localhost", tmp_path)
        (tmp_path / "msp.yaml").write_text(f"msp_id: ResearchMSP\ncertificate: {certificate}\nkey: {key}\n")
        with pytest.raises((ConfigError, ServiceAway), match="does not accept this identity's certificate"):
            shared.ask(shared.request(), client=shared.client(tmp_path / "msp.yaml"))

    def test_an_organisation_that_left_the_ledger_gets_nothing(self, own: KeyWorld) -> None:
        request, world = own.request(), own.world
        policy = world.ledger("owner").query("GetPolicy", {})
        rest = {name: role for name, role in policy["organisations"].items() if role != "research"}
        without = {**{name: value for name, value in policy.items() if name != "version"}, "organisations": rest}
        proposal = world.ledger("owner").submit("ProposePolicy", {"policy": without}, b"p" * 16).result["id"]
        world.ledger("custodian").submit("ConfirmPolicy", {"id": proposal})
        denied(own, request, "certificate not accepted")

    def test_a_client_believes_no_other_server(self, shared: KeyWorld, tmp_path: Path) -> None:
        research_ca = read_certificate(shared.organisation("research") / "cacerts" / "ca.pem")
        client = KeyClient(shared.url, shared.identity(), [research_ca.public_bytes(Encoding.DER)])
        with pytest.raises(ConfigError, match="is not the hospital's"):
            shared.ask(shared.request(), client=client)
        elsewhere = KeyClient(shared.url.replace("localhost", "127.0.0.1"), shared.identity(), [shared.owner_ca])
        with pytest.raises(ConfigError, match="is not the hospital's"):
            shared.ask(shared.request(), client=elsewhere)

    def test_nobody_waits_for_a_client_that_is_silent(self, shared: KeyWorld) -> None:
        request = shared.request()
        silent = [socket.create_connection(address(shared), 10) for _ in range(20)]
        try:
            assert shared.ask(request, client=shared.client(deadline_s=9))
        finally:
            for connection in silent:
                connection.close()

    def test_who_shows_no_certificate_takes_no_more_than_some_descriptors(
        self, own: KeyWorld, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(serving, "STRANGERS", 5)
        request = own.request()
        with ExitStack() as held:
            silent = [held.enter_context(socket.create_connection(address(own), 10)) for _ in range(20)]
            assert own.ask(request)
            known = held.enter_context(tls(own, own.identity()))
            silent += [held.enter_context(socket.create_connection(address(own), 10)) for _ in range(5)]
            assert {connection.recv(1) for connection in silent[:20]} == {b""}, "the oldest are cut off"
            known.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert known.recv(100).startswith(b"HTTP/1.1 404 "), "who has shown one is not"

    def test_one_organisation_does_not_take_all_connections(self, own: KeyWorld) -> None:
        request = own.request()
        with ExitStack() as held:
            theirs = [held.enter_context(tls(own, own.identity("custodian"))) for _ in range(EACH + 1)]
            assert theirs[-1].recv(1) == b"", "one too many"
            assert own.ask(request)
            theirs[0].close()

            def answered() -> bool:
                again = held.enter_context(tls(own, own.identity("custodian")))
                with suppress(ConnectionError, ssl.SSLError):
                    again.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                    return again.recv(100).startswith(b"HTTP/1.1 404 ")
                return False

            wait_until(answered, 10, "who has left makes room")


class TestCalls:
    """What is no call that can be answered."""

    @pytest.mark.parametrize(
        ("method", "path", "body", "status", "title"),
        [
            ("GET", "/v1/keys", b"", 404, "no such address"),
            ("POST", "/", b"", 404, "no such address"),
            ("POST", "/v1/keys/../keys", b"", 404, "no such address"),
            ("POST", "/v1/keys", b"", 400, "call not readable"),
            ("POST", "/v1/keys", b"\xff" * 100, 400, "call not readable"),
            ("POST", "/v1/keys", cbor.encode({"request": bytes(32)}), 400, "call not readable"),
            ("POST", "/v1/studies", cbor.encode({"request": bytes(31)}), 400, "call not readable"),
            ("POST", "/v1/studies", cbor.encode({"request": "a" * 32}), 400, "call not readable"),
            ("POST", "/v1/studies", cbor.encode([bytes(32)]), 400, "call not readable"),
            ("POST", "/v1/studies", bytes(LARGEST_CALL + 1), 413, "call too large"),
        ],
    )
    def test_is_told_so_by_a_fixed_text(
        self, shared: KeyWorld, method: str, path: str, body: bytes, status: int, title: str
    ) -> None:
        assert exchange(shared, method, path, body) == (status, {"title": title, "status": status})

    def test_bytes_that_are_no_public_key(self, shared: KeyWorld) -> None:
        call = {"request": shared.request(), "study": shared.study, "publicKey": b"\xff" * 1216}
        assert exchange(shared, "POST", "/v1/keys", cbor.encode(call))[1]["title"] == "call not readable"

    def test_a_body_without_end_is_not_read(self, shared: KeyWorld) -> None:
        with tls(shared, shared.identity()) as connection:
            connection.sendall(b"POST /v1/keys HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
            connection.sendall(b"1000\r\n" + bytes(4096) + b"\r\n" + b"1000\r\n" + bytes(4096) + b"\r\n")
            assert connection.recv(100).startswith(b"HTTP/1.1 413 ")

    def test_a_head_without_end_is_not_read(self, shared: KeyWorld) -> None:
        with tls(shared, shared.identity()) as connection:
            connection.sendall(b"POST /v1/keys HTTP/1.1\r\nX: " + b"a" * 20_000)
            assert connection.recv(100).startswith(b"HTTP/1.1 400 ")

    def test_a_fault_tells_nothing_of_itself(self, own: KeyWorld, caplog: pytest.LogCaptureFixture) -> None:
        request = own.request()
        keyring = own.world.node.config.data_dir / "keyring.db"
        keyring.write_bytes(b"damaged" * 5000)
        call = {"request": request, "study": own.study, "publicKey": PRIVATE.public.raw}
        assert exchange(own, "POST", "/v1/keys", cbor.encode(call)) == (
            500,
            {"title": "fault of this node", "status": 500},
        )
        assert str(keyring) not in caplog.text


def test_no_secret_header_or_body_is_logged(shared: KeyWorld, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    request = shared.request()
    file = KeyFile.decode(shared.ask(request))
    exchange(shared, "POST", "/v1/keys", b"body of the call", {"X-Header": "value-of-the-header"})
    rows = file.open(PRIVATE).instances
    unsaid = [
        PRIVATE.public.raw,
        request,
        file.sealed,
        *(part for row in rows for part in (row.keys.seal, row.keys.salt)),
    ]
    for secret in unsaid:
        assert secret.hex() not in caplog.text
        assert repr(secret)[2:-1] not in caplog.text
    for text in ("body of the call", "value-of-the-header", shared.world.study_uid):
        assert text not in caplog.text


@pytest.mark.parametrize("spoiled", ["https.pem", "https.key"])
def test_a_servers_certificate_or_key_that_cannot_be_used_is_named(own: KeyWorld, spoiled: str) -> None:
    with closing(free_ports()) as ports:
        https = make_https(own.world, ports)
    (https.key.parent / spoiled).write_text("no PEM")
    with pytest.raises(ConfigError, match=r"https: .*https.pem and .*https.key: expected a certificate"):
        Server(https, lambda: None, own.world.node.ledger_as())  # type: ignore[arg-type]


def address(world: KeyWorld) -> tuple[str, int]:
    return "127.0.0.1", int(world.url.rpartition(":")[2])


def tls(world: KeyWorld, identity: Path | None, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> ssl.SSLSocket:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=world.owner_ca)
    if version is not ssl.TLSVersion.TLSv1_3:
        context.maximum_version = version
    if identity is not None:
        context.load_cert_chain(*tls_files(identity))
    return context.wrap_socket(socket.create_connection(address(world), 10), server_hostname="localhost")


def exchange(
    world: KeyWorld, method: str, path: str, body: bytes, headers: dict[str, str] | None = None
) -> tuple[int, Any]:
    """What a call is refused with: status and problem."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=world.owner_ca)
    context.load_cert_chain(*tls_files(world.identity()))
    with closing(
        http.client.HTTPSConnection("localhost", address(world)[1], timeout=10, context=context)
    ) as connection:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        assert answer.getheader("content-type") == "application/problem+json"
        return answer.status, json.loads(answer.read())


class TestProcess:
    """`orthanc-ledger web`, as `serve` starts it."""

    def configured(self, own: KeyWorld) -> tuple[Path, KeyWorld]:
        path = own.world.node.config.data_dir.parent / CONFIG_NAME
        with closing(free_ports()) as ports:
            https = make_https(own.world, ports)
        made = {"certificate": str(https.certificate), "key": str(https.key), "port": https.port}
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), "https": made}))
        return path, KeyWorld(own.world, f"https://localhost:{https.port}")

    def test_gives_keys_until_it_is_told_to_end(self, own: KeyWorld, start_process: Any) -> None:
        path, there = self.configured(own)
        process = start_process([sys.executable, "-m", "orthanc_ledger", "--config", path, "web"], cwd=ROOT)
        request, port = own.request(), address(there)[1]
        wait_until(lambda: not _free(port), 20, "it listens")
        assert KeyFile.decode(there.ask(request)).open(PRIVATE).study == own.study
        process.terminate()
        assert process.wait(10) == 0

    def test_is_started_where_https_is_configured_only(self, own: KeyWorld) -> None:
        path, _ = self.configured(own)
        assert "web" in [child.name for child in children(load(path), path)]
        assert "web" not in [child.name for child in children(own.world.node.config, path)]

    def test_a_port_in_use_is_tried_again_and_ends_no_node(self, own: KeyWorld, start_process: Any) -> None:
        path, there = self.configured(own)
        with socket.create_server(address(there)):
            process = start_process([sys.executable, "-m", "orthanc_ledger", "--config", path, "web"], cwd=ROOT)
            assert process.wait(20) == 3


def _free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
