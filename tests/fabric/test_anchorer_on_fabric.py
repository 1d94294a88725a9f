"""The anchorer's tests, every node with its ledger on Fabric."""

import pytest
import test_anchorer

from tests.fabric.moved import again

LEFT_OUT = {"test_the_embedded_ledger_of_what_it_anchored_is_whole": "fsck is of an embedded ledger's file"}

globals().update(again(test_anchorer, LEFT_OUT))
pytestmark = [pytest.mark.usefixtures("moved"), pytest.mark.timeout(1200)]  # with what is built the first time
