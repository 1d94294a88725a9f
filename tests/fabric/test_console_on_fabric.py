"""Owner and custodian approve in their consoles, each at its own peer."""

import pytest

from tests.console import test_approval
from tests.fabric.moved import again

LEFT_OUT = {
    "test_a_revoked_certificate_signs_nothing": "the organisation's CA is not here to issue one that may go",
    "test_a_ledger_that_is_away_is_said_and_signs_nothing": "takes an embedded ledger's file away",
    "test_guessing_the_password_of_who_is_logged_in_ends_soon": "nothing of it is the ledger's",
    "test_what_the_contract_would_refuse_is_not_offered": "nothing of it is the ledger's",
}

globals().update(again(test_approval, LEFT_OUT))
pytestmark = [pytest.mark.usefixtures("moved"), pytest.mark.timeout(1200)]  # with what is built the first time
