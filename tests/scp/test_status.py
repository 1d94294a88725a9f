"""The table of statuses."""

import pytest

from dicom_scp import status
from dicom_scp.ports import Refused, UidMismatch
from orthanc_ledger.errors import ContentAway, IntegrityError, LedgerAway, NotHeld, SpoolFull, Unreadable
from orthanc_ledger.reasons import Reason
from orthanc_ledger.store_status import store_refusal


@pytest.mark.parametrize(
    ("error", "code", "comment"),
    [
        (SpoolFull("x"), 0xA700, "spool full"),
        (UidMismatch("x"), 0xA900, "uid mismatch"),
        (Unreadable("x"), 0xC000, "not readable"),
        (Refused(Reason.NO_APPROVAL), 0x0124, "no approval"),
        (ContentAway("x"), 0x0110, None),
    ],
)
def test_store_refusals(error: Exception, code: int, comment: str | None) -> None:
    assert store_refusal(error) == status.Answer(code, comment)


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        (Reason.NO_APPROVAL, 0x0124),
        (Reason.APPROVAL_EXPIRED, 0x0124),
        (Reason.WITHDRAWN, 0x0124),
        (Reason.RELEASE_FORM, 0x0124),
        (Reason.DESTINATION, 0x0124),
        (Reason.LEDGER_UNAVAILABLE, 0xA702),
        (Reason.WITHHELD_INTEGRITY, 0xA702),
        (Reason.BAD_IDENTIFIER, 0xA900),
    ],
)
def test_retrieve_refusals_carry_their_reason(reason: Reason, code: int) -> None:
    assert status.retrieve_refusal(reason) == status.Answer(code, reason)


@pytest.mark.parametrize(
    ("completed", "warnings", "failed", "code"),
    [
        (0, 0, 0, 0x0000),
        (3, 0, 0, 0x0000),
        (3, 0, 1, 0xB000),
        (2, 1, 0, 0xB000),
        (0, 1, 2, 0xB000),
        (0, 0, 3, 0xA702),
    ],
)
def test_outcome_of_a_retrieve(completed: int, warnings: int, failed: int, code: int) -> None:
    assert status.retrieve_outcome(completed, warnings, failed) == code


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Refused(Reason.APPROVAL_EXPIRED), Reason.APPROVAL_EXPIRED),
        (IntegrityError("x"), Reason.WITHHELD_INTEGRITY),
        (LedgerAway("x"), Reason.LEDGER_UNAVAILABLE),
        (NotHeld("x"), None),
    ],
)
def test_reason_of_a_failed_sub_operation(error: Exception, reason: Reason | None) -> None:
    assert status.sub_operation_reason(error) == reason


@pytest.mark.parametrize(("code", "stored"), [(0x0000, True), (0xB000, True), (0xB007, True), (0xA700, False)])
def test_warnings_of_a_recipient_mean_that_it_has_the_object(code: int, stored: bool) -> None:
    assert status.is_stored(code) is stored


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_fits_an_error_comment(reason: Reason) -> None:
    assert len(reason) <= 64
    assert reason.isascii()
