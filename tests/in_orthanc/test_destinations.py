"""Orthanc has no way of its own to research: not in its lists, not over HTTP, not by scripts, not by jobs of before."""

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import wait_until

from orthanc_ledger.peer import Peer
from orthanc_ledger.plugin.research import Research, modality_place, server_url
from tests.in_orthanc.conftest import Hospital, Hospitals, Site, new_hospital
from tests.in_orthanc.kept import store_files
from tests.in_orthanc.live import START_S, Answer, LiveOrthanc
from tests.in_orthanc.moving import WAIT_S, Destination

ELSEWHERE = "192.0.2.20"  # an address that nobody has (RFC 5737)
HERE = "127.0.0.1"
NOWHERE = 1


def peer(port: int, host: str = HERE, title: str = "RESEARCH1") -> dict[str, Any]:
    return {"ae_title": title, "role": "research", "organisation": "ResearchMSP", "host": host, "port": port}


WARD = {"ae_title": "WARD", "role": "clinical"}
CLINIC = {"WS": ["WARD", HERE, NOWHERE]}


@pytest.mark.parametrize(
    ("place", "is_research"),
    [
        (("RESEARCH1", HERE, NOWHERE), True),
        ((" research1", HERE, NOWHERE), True),
        (("OTHER", HERE, 4242), True),
        (("OTHER", "localhost", 4242), True),
        (("OTHER", HERE, 4243), False),
        (("OTHER", ELSEWHERE, 7), True),
        (("OTHER", "192.0.2.21", 7), True),
        (("OTHER", "192.0.2.99", 7), False),
        (("OTHER", f"{ELSEWHERE} ", 7), True),
        (("OTHER", f"{ELSEWHERE}:104", 7), True),
        (("WARD", ELSEWHERE, 7), False),
        (("WARD", ELSEWHERE, 104), True),
    ],
)
def test_research_is_known_by_title_or_place(place: tuple[str, str, int], is_research: bool) -> None:
    research = Research(
        [
            Peer("RESEARCH1", "research", "R", host=HERE, port=4242),
            Peer("RESEARCH2", "research", "R", hosts=("192.0.2.21",), host=ELSEWHERE, port=104),
            Peer("WARD", "clinical"),
        ]
    )
    assert research.is_place(place) is is_research


@pytest.mark.parametrize(
    ("url", "is_research"),
    [
        (f"http://{ELSEWHERE}:8042/", True),
        (f"https://user@{ELSEWHERE}/dicom-web", True),
        (f"{ELSEWHERE}:8042", True),
        ("http://192.0.2.99/", False),
        (f"http://{HERE}:4242/", False),
        ("", False),
    ],
)
def test_research_is_known_by_its_machine(url: str, is_research: bool) -> None:
    assert Research([Peer("R", "research", "R", host=ELSEWHERE, port=104)]).is_machine(url) is is_research


def test_any_address_of_a_machine_of_research_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {"lab": ["2001:db8::20", ELSEWHERE], "dicom.lab": [ELSEWHERE]}

    def resolved(host: str, *_: Any, **__: Any) -> list[Any]:
        return [(None, None, 0, "", (address, 0)) for address in known.get(host, [host])]

    monkeypatch.setattr(socket, "getaddrinfo", resolved)
    research = Research([Peer("R", "research", "R", host=ELSEWHERE, port=104)])
    assert research.is_machine("http://lab/")
    assert research.is_place(("OTHER", "dicom.lab", 7))
    assert Research([Peer("R", "research", "R", host="lab", port=104)]).is_place(("OTHER", ELSEWHERE, 7))


def test_research_is_known_by_name_while_names_are_not_found_and_by_address_once_they_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def away(*_: Any, **__: Any) -> list[Any]:
        raise socket.gaierror("no name server")

    monkeypatch.setattr(socket, "getaddrinfo", away)
    research = Research([Peer("R", "research", "R", host="Lab", port=104)])
    assert research.is_place(("OTHER", "lab", 7))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(None, None, 0, "", (ELSEWHERE, 0))])
    assert research.is_place(("OTHER", ELSEWHERE, 7))


def test_entries_are_read_in_both_forms_that_orthanc_takes() -> None:
    assert modality_place(["A", "h", 104, "Generic"]) == modality_place({"AET": "A", "Host": "h", "Port": "104"})
    assert modality_place(["A"]) == modality_place({"AET": "A"}) == ("A", "", 0)
    assert server_url(["http://h/", "user", "password"]) == server_url({"Url": "http://h/"}) == "http://h/"
    assert server_url([]) == server_url({}) == ""


OPEN = {"DicomAlwaysAllowMove": True}
ACCEPTED = {"Accept": list(OPEN)}


def test_anybody_may_ask_for_a_move_only_where_the_plugin_answers(hospital: Hospitals) -> None:
    made = hospital({"Move": False, **ACCEPTED}, OPEN, {"peers": [peer(104)]})
    assert '"DicomAlwaysAllowMove": expected false' in made.orthanc.refused()


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"DicomModalities": {"x": ["research1", "192.0.2.9", 104]}}, "\"DicomModalities\": 'x' leads to research"),
    (
        {"DicomModalities": {"x": {"AET": "X", "Host": ELSEWHERE, "Port": 9}}},
        "\"DicomModalities\": 'x' leads to research",
    ),
    ({"DicomModalities": {"RESEARCH1": ["X", "192.0.2.9", 104]}}, "\"DicomModalities\": 'RESEARCH1' leads to research"),
    ({"OrthancPeers": {"x": [f"http://{ELSEWHERE}:8042/"]}}, "\"OrthancPeers\": 'x' leads to research"),
    (
        {"DicomWeb": {"Enable": True, "Root": "/dicom-web/", "Servers": {"x": {"Url": f"http://{ELSEWHERE}/"}}}},
        '"DicomWeb": "Servers": \'x\' leads to research',
    ),
]


@pytest.mark.parametrize(("settings", "said"), WRONG, ids=[said for _, said in WRONG])
def test_orthanc_does_not_start_with_research_in_a_list(
    hospital: Hospitals, settings: dict[str, Any], said: str
) -> None:
    made = hospital(settings=settings, node={"peers": [peer(104, ELSEWHERE)]})
    assert said in made.orthanc.refused()


def test_orthanc_stops_when_its_database_has_research_in_a_list(
    hospital: Hospitals, free_port: Callable[[], int]
) -> None:
    kept = {"DicomModalitiesInDatabase": True, "OrthancPeersInDatabase": True}
    made = hospital(settings=kept, node={"peers": [peer(104, ELSEWHERE)]}).orthanc
    plain = LiveOrthanc(made.version, made.folder, made.http_port, made.dicom_port, settings=kept)
    plain.start()
    assert plain.call("PUT", "/modalities/lab", ["LAB", ELSEWHERE, 4242]).status == 200
    assert plain.call("PUT", "/peers/lab", [f"http://{ELSEWHERE}/"]).status == 200
    assert plain.stop() == 0
    made.launch()
    assert made.process is not None
    assert made.process.wait(START_S) == 0
    made.process = None
    log = made.log.read_text(errors="replace")
    assert "Orthanc's database has the modality 'lab', which leads to research: Orthanc stops" in log
    assert "Orthanc's database has the peer 'lab', which leads to research: Orthanc stops" in log


@pytest.fixture(scope="module")
def clinic(site: Site) -> Iterator[Hospital]:
    """An Orthanc whose node has research peers elsewhere, and does not run."""
    servers = {"clinic": {"Url": "http://192.0.2.99/"}}
    settings = {"DicomModalities": CLINIC, "DicomWeb": {"Enable": True, "Root": "/dicom-web/", "Servers": servers}}
    node = {"peers": [peer(104, ELSEWHERE), peer(105, ELSEWHERE, "LAB 2"), WARD]}
    made = new_hospital(*site, {"Serve": False}, settings, node)
    made.orthanc.start()
    yield made
    assert made.orthanc.stop() == 0


@pytest.mark.parametrize(
    ("path", "entry"),
    [
        ("/modalities/x", ["research1", "192.0.2.9", 104]),
        ("/modalities/x", {"AET": "X", "Host": ELSEWHERE, "Port": 104}),
        ("/modalities/x", ["X", ELSEWHERE, "104"]),
        ("/modalities/research1", ["X", "192.0.2.9", 104]),
        ("/peers/x", [f"http://{ELSEWHERE}:8042/"]),
        ("/peers/x", {"Url": f"https://{ELSEWHERE}/"}),
    ],
)
def test_staff_cannot_add_research(clinic: Hospital, path: str, entry: Any) -> None:
    answer = clinic.orthanc.call("PUT", path, entry)
    assert (answer.status, "would lead to research" in answer.json()["Message"]) == (403, True)
    (_, kind, name) = path.split("/")
    assert name not in clinic.orthanc.call("GET", f"/{kind}").json()


@pytest.mark.parametrize(
    "body", ['/* */ ["RESEARCH1", "192.0.2.9", 104]', '["RESEARCH1", "192.0.2.9", 104] x', '["RESEARCH1", "h", 104,]']
)
def test_what_only_orthanc_can_read_adds_no_research(clinic: Hospital, body: str) -> None:
    assert clinic.orthanc.call("PUT", "/modalities/x", body).status == 400
    assert "x" not in clinic.orthanc.call("GET", "/modalities").json()


def test_staff_add_change_and_remove_others_as_ever(clinic: Hospital, orthancs: Callable[..., LiveOrthanc]) -> None:
    plain = orthancs(clinic.orthanc.version, "plain", settings=clinic.orthanc.settings)
    plain.start()

    def told(answer: Answer) -> tuple[int, Any]:
        """Without Orthanc's longer words for an error."""
        return answer.status, answer.body if answer.status == 200 else None

    for kind, good, bad in (
        ("modalities", ["X", "192.0.2.9", 104], {"AET": "X"}),
        ("peers", ["http://192.0.2.9/"], {}),
    ):
        for method, path, body in (
            *(("PUT", f"/{kind}/x", each) for each in (good, bad, "garbage", "", "7")),
            ("POST", f"/{kind}/x", good),
            ("GET", f"/{kind}/x", None),
            ("GET", f"/{kind}/x/configuration", None),
            ("HEAD", f"/{kind}/x", None),
            ("DELETE", f"/{kind}/x", None),
            ("DELETE", f"/{kind}/x", None),
            ("GET", f"/{kind}/x", None),
        ):
            was, got = (told(each.call(method, path, body)) for each in (plain, clinic.orthanc))
            assert got == was, (method, path, body)


def test_research_peers_stand_among_the_modalities(clinic: Hospital) -> None:
    orthanc = clinic.orthanc
    assert orthanc.call("GET", "/modalities").json() == ["WS", "RESEARCH1", "LAB 2"]
    expanded = orthanc.call("GET", "/modalities?expand").json()
    assert list(expanded) == ["WS", "RESEARCH1", "LAB 2"]
    assert (expanded["LAB 2"]["Host"], expanded["LAB 2"]["Port"]) == (ELSEWHERE, 105)
    assert orthanc.call("GET", "/modalities/LAB%202").json() == ["configuration", "store"]
    assert orthanc.call("GET", "/modalities/LAB%202/configuration").json() == expanded["LAB 2"]
    assert orthanc.call("POST", "/modalities", "{}").status == 405


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", ""),
        ("DELETE", ""),
        ("POST", ""),
        ("POST", "/store-straight"),
        ("POST", "/echo"),
        ("POST", "/find"),
        ("POST", "/query"),
        ("POST", "/move"),
        ("POST", "/get"),
        ("POST", "/storage-commitment"),
        ("GET", "/store"),
        ("POST", "/store/x"),
    ],
)
def test_a_research_peer_can_be_sent_to_and_nothing_else(clinic: Hospital, method: str, path: str) -> None:
    answer = clinic.orthanc.call(method, f"/modalities/RESEARCH1{path}", "{}")
    assert (answer.status, "which alone sends to it" in answer.json()["Message"]) == (403, True)


def test_a_dicomweb_server_of_research_is_not_used(clinic: Hospital) -> None:
    orthanc = clinic.orthanc
    assert orthanc.call("PUT", "/dicom-web/servers/lab", {"Url": f"http://{ELSEWHERE}/"}).status == 200
    for route in ("stow", "get", "retrieve", "qido", "wado"):
        for path in (f"/dicom-web/servers/lab/{route}", f"//dicom-web//servers/l%61b/{route}/"):
            assert orthanc.call("POST", path, {"Resources": [], "Uri": "/studies"}, timeout_s=5).status == 403
    assert orthanc.call("POST", "/dicom-web/servers/clinic/stow", {"Resources": []}).status != 403
    assert orthanc.call("POST", "/dicom-web/servers/nobody/stow", {"Resources": []}).status != 403


LUA = """
function OnStoredInstance(instanceId, tags, metadata, origin)
  SendToModality(instanceId, 'RESEARCH1')
  SendToModality(instanceId, 'lab')
  SendToPeer(instanceId, 'lab')
  Delete(SendToModality(instanceId, 'RESEARCH1'))
end
"""


def test_neither_a_script_nor_a_job_of_before_sends_to_research(
    hospital: Hospitals, free_port: Callable[[], int], samples_dir: Path
) -> None:
    lab = Destination("RESEARCH1", free_port())
    clinical = {"DicomModalities": {"MRI1": ["MRI1", HERE, NOWHERE]}}
    made = hospital({"Serve": False}, clinical, {"peers": [peer(lab.port)]}).orthanc
    files = sorted((samples_dir / "siemens-skyra").rglob("*.dcm"))
    listed = clinical["DicomModalities"] | {"lab": ["RESEARCH1", HERE, lab.port]}
    before = {"DicomModalities": listed, "ConcurrentJobs": 1}
    plain = LiveOrthanc(made.version, made.folder, made.http_port, made.dicom_port, settings=before)
    plain.start()
    store_files(plain, files[:1])
    asked = {"Resources": plain.call("GET", "/instances").json(), "Synchronous": False}
    failed = begun(plain, asked)
    wait_until(lambda: state(plain, failed) == "Failure", WAIT_S, "nobody listens")
    with lab.listening():
        go_on = threading.Event()
        lab.fresh(each=lambda _: go_on.wait(WAIT_S))
        first, waiting = begun(plain, asked), begun(plain, asked)
        assert plain.call("POST", f"{waiting}/pause", "").status == 200
        go_on.set()
        wait_until(lambda: state(plain, first) == "Success", WAIT_S, "the first has sent")
        assert plain.stop() == 0
        lab.fresh()
        (made.folder / "send.lua").write_text(LUA)
        made.settings = clinical | {"LuaScripts": [str(made.folder / "send.lua")]}
        made.start()
        for job in (failed, first, waiting):
            assert made.call("GET", job).json()["Content"]["RemoteAet"] == "RESEARCH1"
            assert made.call("POST", f"{job}/resubmit", "").status == 403
            assert made.call("POST", f"{job}/resume", "").status == 403
        wait_until(lambda: state(made, waiting) == "Failure", WAIT_S, "what waited is cancelled")
        store_files(made, files[1:])
        wait_until(lambda: "No modality with symbolic name" in said_by(made), WAIT_S, "the script has tried")
        assert made.stop() == 0
    assert lab.callers == []


def begun(orthanc: LiveOrthanc, asked: dict[str, Any]) -> str:
    """The address of a new job that sends to the modality `lab`."""
    return "/jobs/" + str(orthanc.call("POST", "/modalities/lab/store", asked).json()["ID"])


def state(orthanc: LiveOrthanc, job: str) -> str:
    return str(orthanc.call("GET", job).json()["State"])


def said_by(orthanc: LiveOrthanc) -> str:
    return orthanc.log.read_text(errors="replace")
