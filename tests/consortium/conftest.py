"""What live tests of a network share."""

from tests.consortium.live import one_network  # noqa: F401  # a fixture
