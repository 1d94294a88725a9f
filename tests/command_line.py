"""`orthanc-ledger` run in this process, for tests of its commands."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from orthanc_ledger import cli


class Done(NamedTuple):
    """What a command left: exit code, standard output, standard error."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        """What it printed with --json."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def row(self) -> dict[str, Any]:
        """The one row it printed with --json."""
        (row,) = self.rows
        return row


Command = Callable[..., Done]


def runner(capsys: pytest.CaptureFixture[str], *before: object) -> Command:
    """Runs the command with these words before all others."""

    def run(*words: object) -> Done:
        capsys.readouterr()
        try:
            code = cli.main([str(word) for word in (*before, *words)])
        except SystemExit as stopped:  # argparse: --help, and options it does not know
            code = int(stopped.code or 0)
        return Done(code, *capsys.readouterr())

    return run
