"""Certificates taken back by their organisation."""

import pytest

from tests.ledger.channel import LAB, OTHER_LAB, OWNER, ROLES, Channel
from tests.ledger.test_arguments import VALID

MEMORY_SERIAL = "1f"


@pytest.mark.parametrize("organisation", ROLES)
def test_every_organisation_takes_back_its_own(channel: Channel, organisation: str) -> None:
    channel.repeats(organisation, "RevokeCertificate", serial="2a")


def test_nothing_is_accepted_from_a_revoked_certificate_any_more(memory: Channel) -> None:
    memory.node()
    memory.call(LAB, "RevokeCertificate", serial=MEMORY_SERIAL)
    memory.refuses("NOT_PERMITTED", "certificate", LAB, "RequestAccess", **memory.access())
    memory.refuses("NOT_PERMITTED", "certificate", LAB, "RevokeCertificate", serial="2a")
    memory.refuses("NOT_PERMITTED", "certificate", LAB, "Anchor", **VALID["Anchor"])  # before its role is looked at


def test_the_same_serial_of_another_organisation_is_another_certificate(memory: Channel) -> None:
    memory.node(OTHER_LAB)
    memory.call(LAB, "RevokeCertificate", serial=MEMORY_SERIAL)
    assert memory.request(OTHER_LAB, node={"organisation": OTHER_LAB, "aeTitle": "LAB1"})


def test_what_was_accepted_before_stays(memory: Channel) -> None:
    request, manifest = memory.approved()
    memory.call(LAB, "RevokeCertificate", serial=MEMORY_SERIAL)
    assert memory.call(OWNER, "LogRelease", **memory.release(request, manifest))
