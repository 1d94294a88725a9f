"""The gate's tests, every node with its ledger on Fabric."""

import pytest
import test_gate

from tests.fabric.moved import again

globals().update(again(test_gate, {}))
pytestmark = [pytest.mark.usefixtures("moved"), pytest.mark.timeout(1200)]  # with what is built the first time
