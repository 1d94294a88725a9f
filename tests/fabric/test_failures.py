"""What a node does while something of the network fails: care goes on, nothing acknowledged is lost or anchored
twice, and what waits goes on by itself. docs/operations.md tells it to whoever operates the node.
"""

import re
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from textwrap import shorten

import pytest
import torture_check as check
from conftest import ROOT, wait_until
from torture_load import Slice

from orthanc_ledger.consortium.network import Network
from tests.fabric.failures import FAILING, FAILURES, Failure, Site, arriving, hospital

pytestmark = pytest.mark.timeout(1200)  # with what is built the first time

SEEN_WITHIN_S = 60.0
TOLD_WITHIN_S = 120.0
GOES_ON_WITHIN_S = 120.0
_LONGEST = 200
PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
SECTIONS = dict(section.split("\n", 1) for section in re.split(r"^### ", PAGE, flags=re.MULTILINE)[1:])


@pytest.fixture(scope="module")
def site(network: Network, tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[Site]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", f"{FAILING}:{ROOT}")
        environment.setenv("FAILURES", str(tmp_path_factory.mktemp("failures")))
        with hospital(network, tmp_path_factory.mktemp("site"), free_port) as running:
            yield running


@pytest.mark.parametrize("failure", FAILURES, ids=[each.name for each in FAILURES])
def test_care_goes_on_nothing_is_lost_or_done_twice_and_all_goes_on_by_itself(
    site: Site, failure: Failure, figure: Callable[[str], None]
) -> None:
    with arriving(site):
        failure.begin(site)
        try:
            told = while_it_lasts(site, failure)
        finally:
            failure.end(site)
        begun_s = time.monotonic()
        wait_until(lambda: site.seen_by_research() == "whole", GOES_ON_WITHIN_S, "research has its study again")
        research_s = time.monotonic() - begun_s
    check.wait_drained(site.node, GOES_ON_WITHIN_S)
    wait_until(lambda: not site.node.outbox.alarms(), GOES_ON_WITHIN_S, "the alarms are taken back")
    drained_s = time.monotonic() - begun_s
    assert not site.book.wrong
    check.check_anchored_once(site.node, site.book.held(), site.book.held())
    check.check_nothing_left(site.node)
    figure(f"{failure.name}: {told}; over: research after {research_s:.1f} s, all anchored after {drained_s:.1f} s")


def while_it_lasts(site: Site, failure: Failure) -> str:
    """What is seen meanwhile, in words."""
    begun_s, before = time.monotonic(), len(site.book.held())
    wait_until(lambda: len(site.book.held()) > before, SEEN_WITHIN_S, "an object is acknowledged")
    newest = site.book.held()[-1]
    with ThreadPoolExecutor() as clients:
        research = clients.submit(site.seen_by_research)
        wait_until(lambda: site.seen_by_care(newest), SEEN_WITHIN_S, "care has what has just come")
        care_s = time.monotonic() - begun_s
        care = f"care had a new object after {care_s:.1f} s"
        if not failure.alarms:
            wait_until(lambda: is_anchored(site, newest), GOES_ON_WITHIN_S, "what came meanwhile is anchored")
            assert not site.node.outbox.alarms()
            anchored_s = time.monotonic() - begun_s
            wait_until(lambda: site.seen_by_research() == "whole", GOES_ON_WITHIN_S, "research has its study")
            return f"{care}, anchored after {anchored_s:.1f} s; research {research.result()}; no alarm"
        wait_until(lambda: told(site).keys() == set(failure.alarms), TOLD_WITHIN_S, f"alarms: {failure.alarms}")
        assert research.result() == "0xA702"
    assert not is_anchored(site, newest)
    for kind, words in announced(failure):
        assert told(site)[kind].startswith(words)
    status = site.live.status()
    assert status["batches_not_on_ledger"]
    assert {alarm["kind"] for alarm in status["alarms"]} == set(failure.alarms)
    alarms = [f"ALARM {alarm['kind']}: {alarm['text']}" for alarm in status["alarms"]]
    said = [f"ledger {status['ledger']}", f"batches_not_on_ledger {status['batches_not_on_ledger']}", *alarms]
    return f"{care}; research 0xA702; status: {'; '.join(shorten(each, _LONGEST, placeholder='…') for each in said)}"


def is_anchored(site: Site, sent: Slice) -> bool:
    held = site.node.index.select(studies=[sent.study_uid])
    return any(instance.sop_uid == sent.sop_uid and instance.state == "anchored" for instance in held)


def told(site: Site) -> dict[str, str]:
    return {alarm.kind: alarm.text for alarm in site.node.outbox.alarms()}


def announced(failure: Failure) -> list[tuple[str, str]]:
    """The alarms that the page has for a failure: kind, and the words before what is different each time."""
    return re.findall(r"^    ALARM ([a-z ]+): (.+?)…", SECTIONS[failure.name], re.MULTILINE)


def test_the_page_tells_of_each_failure_and_its_alarms() -> None:
    assert list(SECTIONS) == [failure.name for failure in FAILURES]
    for failure in FAILURES:
        assert tuple(kind for kind, _ in announced(failure)) == failure.alarms
    assert [failure.name for failure in FAILURES if not failure.alarms] == re.findall(
        r"^### (.+)", PAGE.split("## Somebody has to act")[0], re.MULTILINE
    )
