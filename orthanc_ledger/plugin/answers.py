"""Answers to HTTP requests that the plugin takes in Orthanc's place: in Orthanc's shape, or Orthanc's own."""

import json
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

import orthanc

JSON = "application/json; charset=utf-8"

# Orthanc's error codes (OrthancPluginErrorCode) -> HTTP statuses, as Orthanc has them; 500 for all others.
_STATUSES = {
    3: HTTPStatus.BAD_REQUEST,
    7: HTTPStatus.NOT_FOUND,
    8: HTTPStatus.BAD_REQUEST,
    15: HTTPStatus.BAD_REQUEST,
    17: HTTPStatus.NOT_FOUND,
}


def answer(output: "orthanc.RestOutput", found: Any) -> None:
    """Answer 200 with JSON."""
    output.AnswerBuffer(json.dumps(found, indent=3).encode(), JSON)


def refuse(output: "orthanc.RestOutput", status: HTTPStatus, method: str, uri: str, message: str) -> None:
    """Answer an error as Orthanc does."""
    told = {
        "HttpError": status.phrase,
        "HttpStatus": status.value,
        "Message": message,
        "Method": method,
        "Uri": uri,
    }
    body = json.dumps(told, indent=3)
    try:
        output.SendHttpStatus(status.value, body)
    except TypeError:  # plugin 4.0 wants its length
        output.SendHttpStatus(status.value, body, len(body))


def pass_on(output: "orthanc.RestOutput", method: str, uri: str, body: bytes, options: dict[str, str]) -> None:
    """Answer as Orthanc itself would: GET, PUT or DELETE."""
    query = "&".join(f"{quote(name)}={quote(value)}" if value else quote(name) for name, value in options.items())
    try:
        if method == "GET":
            output.AnswerBuffer(orthanc.RestApiGet(f"{uri}?{query}" if query else uri), JSON)
        elif method == "PUT":
            output.AnswerBuffer(orthanc.RestApiPut(uri, body), "text/plain")
        else:
            orthanc.RestApiDelete(uri)
            output.AnswerBuffer(b"", "text/plain")
    except orthanc.OrthancException as error:
        code, *said = error.args
        status = _STATUSES.get(code, HTTPStatus.INTERNAL_SERVER_ERROR)
        refuse(output, status, method, uri, str(said[0]) if said else status.phrase)
