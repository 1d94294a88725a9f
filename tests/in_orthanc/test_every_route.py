"""Nobody but staff gets anything of Orthanc with the plugin: of every route that it has, of every service, with and
without an approval for the research AE that asks.
"""

from collections.abc import Callable, Iterator

import pytest

from tests.in_orthanc.access_table import FILES, kept, section
from tests.in_orthanc.conftest import Site
from tests.in_orthanc.moving import Destination
from tests.in_orthanc.routes import METHODS
from tests.in_orthanc.walk import CLINICAL, HEADERS, NOBODY, RESEARCH, RESEARCHER, WORKSTATION, World, world

pytestmark = pytest.mark.timeout(600)

REFUSED = {"association aborted", "presentation context refused"}


@pytest.fixture(scope="module")
def made(site: Site) -> Iterator[World]:
    """A hospital with a scan, for all tests here."""
    with world(*site, FILES) as found:
        yield found


def expect_nothing(made: World, *callers: str) -> None:
    """None of these research AEs, or of those who use another's AE title, gets anything by any service."""
    before = made.content()
    with Destination(RESEARCH, made.research_port).listening() as destination:
        for caller in callers:
            services = made.services(caller)
            assert services.pop("C-ECHO") == "0x0000"
            assert set(services.values()) == REFUSED, caller
    assert destination.callers == []
    assert made.content() == before


def test_no_route_tells_anybody_but_staff_anything_or_does_anything(made: World, figure: Callable[[str], None]) -> None:
    before = made.content()
    walked = made.walk()
    for (area, who), statuses in walked.items():
        assert set(statuses) == {401 if who == NOBODY else 403}, f"{who}: {area}"
    assert made.content() == before
    paths = len(made.routes())
    assert sum(statuses.total() for statuses in walked.values()) == paths * len(METHODS) * len(HEADERS)
    figure(f"Orthanc {made.orthanc.version}: {paths} paths by {len(METHODS)} methods, refused to {', '.join(HEADERS)}")
    found = section(made.orthanc.version, made, walked, made.services(RESEARCH))
    assert kept(made.orthanc.version) == found, "run PYTHONPATH=tests python -m tests.in_orthanc.access_table"


def test_staff_are_answered_as_by_a_plain_orthanc(made: World) -> None:
    with_plugin, plain = made.statuses(made.orthanc), made.statuses(made.plain)
    differing = {path: (status, plain[path]) for path, status in with_plugin.items() if status != plain[path]}
    of_the_plugin = {path for path in differing if path.startswith(("/ledger/", f"/modalities/{RESEARCH}"))}
    assert set(differing) == of_the_plugin
    assert list(with_plugin.values()).count(200) > 150


def test_a_research_ae_gets_nothing_by_any_service(made: World) -> None:
    expect_nothing(made, RESEARCH, RESEARCH.lower())


def test_another_ae_title_than_its_own_gets_a_caller_nothing(made: World) -> None:
    expect_nothing(made, WORKSTATION, WORKSTATION.lower(), "PACS", "NODE", "ANY-SCP")


def test_a_clinical_ae_gets_what_these_tests_look_for(made: World) -> None:
    services = made.services(CLINICAL)  # the first stores another object
    assert services["C-FIND Study Root, IMAGE"] == services["C-GET Study Root"] == "0x0000, 3 data sets"


def test_an_approval_opens_nothing_of_orthanc(made: World) -> None:
    study = made.held[id(made.orthanc)].uids[0]
    made.hospital.node.approve(study)
    keys = {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": study}
    status, _, received = made.hospital.node.get(RESEARCH, "research", **keys)
    assert status.Status == 0
    assert len(received) > 1
    expect_nothing(made, RESEARCH)
    assert {status for statuses in made.walk([RESEARCHER]).values() for status in statuses} == {403}
