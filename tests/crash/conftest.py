"""What both tests need: strace."""

import os
import shutil

import pytest


@pytest.fixture(scope="session")
def strace() -> str:
    """Path of strace. Without it a test skips; in CI, where `make test` installs it, it fails."""
    path = shutil.which("strace")
    if path is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("strace is not installed")
    return path
