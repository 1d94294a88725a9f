"""An organisation's own peer is called directly, whatever proxy its machine has for the web."""

import socket

import pytest

from tests.fabric.world import World


def test_no_proxy_of_the_environment_is_called(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        for name in ("grpc_proxy", "https_proxy", "http_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        for name in ("no_grpc_proxy", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        world.ledger().submit("RequestErase", {"study": b"s" * 16})
        proxy.setblocking(False)
        with pytest.raises(BlockingIOError):
            proxy.accept()
