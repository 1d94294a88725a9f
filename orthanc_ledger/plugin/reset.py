"""Orthanc's reset, which starts it anew within its process: the libraries of a Python plugin are not made to be loaded
twice in one, and Orthanc would end there.
"""

from http import HTTPStatus
from typing import Any

import orthanc

from orthanc_ledger.plugin.answers import refuse
from orthanc_ledger.plugin.lasting import lasting

_INSTEAD = "with the ledger's plugin Orthanc cannot be reset within its process: restart its service"


def register() -> None:
    """Answer it, so that Orthanc goes on as it is."""
    orthanc.RegisterRestCallback("/tools/reset", lasting(_answered))


def _answered(output: "orthanc.RestOutput", uri: str, **request: Any) -> None:
    if request["method"] == "POST":
        refuse(output, HTTPStatus.FORBIDDEN, "POST", uri, _INSTEAD)
    else:
        output.SendMethodNotAllowed("POST")
