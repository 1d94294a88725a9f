"""The plugin's start: settings, checks, and what each part of it registers with Orthanc."""

import json
import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

import orthanc

from orthanc_ledger.assemble import BESIDE, ENTRANCE, Node
from orthanc_ledger.config import Config, load
from orthanc_ledger.errors import ConfigError, ServiceAway
from orthanc_ledger.plugin import (
    changes,
    destinations,
    events,
    http_filter,
    ingest,
    moves,
    panel,
    processes,
    reset,
    virtual_modalities,
)
from orthanc_ledger.plugin.beside import Beside
from orthanc_ledger.plugin.checks import check
from orthanc_ledger.plugin.loopback import Loopback
from orthanc_ledger.plugin.research import Research
from orthanc_ledger.plugin.settings import SECTION, Settings, read_settings
from orthanc_ledger.serve import quiet_libraries
from orthanc_ledger.sole import sole

_LOCK = "orthanc.lock"
_held = ExitStack()


def install() -> None:
    """Register the plugin. What this raises ends Orthanc's start; its log names the setting that is wrong."""
    log = logging.getLogger("orthanc_ledger")
    log.addHandler(_OrthancLog())
    log.setLevel(logging.INFO)
    quiet_libraries()
    whole = json.loads(orthanc.GetConfiguration())
    settings = read_settings(whole)
    config = _node_config(settings)
    check(whole, settings)
    another = ServiceAway(f"{config.data_dir}: another Orthanc runs with this node: end it first")
    _held.enter_context(sole(config.data_dir / _LOCK, another))
    node = Node(config)
    _register(whole, settings, node)


def _node_config(settings: Settings) -> Config:
    config = load(settings.configuration)
    if not config.orthanc:
        raise ConfigError(
            f'"{SECTION}": "Configuration": {settings.configuration}: a node with a clinical port of its own; '
            "expected `orthanc: true` there (`orthanc-ledger init --orthanc` writes it)"
        )
    return config


def _register(whole: Mapping[str, Any], settings: Settings, node: Node) -> None:
    """Each part registers itself."""
    events.register()
    research = Research(node.config.peers)
    permits = _register_sending(whole, settings, node, research)
    processes.register(settings, node.config)
    notes = changes.register(node)
    ingest.register(whole, settings, node, research, notes)
    http_filter.register(whole, settings, node, permits)
    panel.register(settings, node.config)
    reset.register()


def _register_sending(
    whole: Mapping[str, Any], settings: Settings, node: Node, research: Research
) -> Callable[[str, str], bool]:
    """All that could lead to research; what is left for HTTP's filter to permit."""
    data_dir = node.config.data_dir
    beside, loopback = Beside(data_dir / BESIDE), partial(Loopback, data_dir / ENTRANCE)
    virtual_modalities.register(research, node.config.ae_title, beside, loopback)
    moves.register(whole, settings, research, beside, loopback)
    return destinations.register(whole, research, loopback).permits


class _OrthancLog(logging.Handler):
    """Our log, in Orthanc's."""

    def emit(self, record: logging.LogRecord) -> None:
        say = orthanc.LogError if record.levelno >= logging.ERROR else orthanc.LogWarning
        (orthanc.LogInfo if record.levelno < logging.WARNING else say)(f"ledger: {record.getMessage()}")
