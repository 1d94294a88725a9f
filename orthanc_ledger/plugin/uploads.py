"""Which HTTP requests bring Orthanc new objects: refused while the spool is below its reserve, as a C-STORE is; and
which of them are STOW-RS.
"""

import re

_STOW = r".*/studies(/[^/]+)?"  # PS3.18 10.5, behind whatever root the DICOMweb plugin has
# Orthanc's own routes, DICOMweb's STOW-RS and retrieval from servers, and WebDAV.
_ROUTES = {
    "POST": re.compile(
        r"/instances|/tools/(create-dicom|bulk-modify|bulk-anonymize)"
        r"|/(patients|studies|series)/[^/]+/(modify|anonymize|merge|split)"
        rf"|{_STOW}|.*/servers/[^/]+/retrieve"
    ),
    "PUT": re.compile(r"/webdav/.*"),
}


def is_upload(method: str, uri: str) -> bool:
    """Whether a request has Orthanc store what it brings, makes or fetches. ``uri``: its path."""
    route = _ROUTES.get(method)
    return route is not None and route.fullmatch(uri.rstrip("/")) is not None


def is_stow(method: str, uri: str) -> bool:
    """Whether a request is STOW-RS, of those that have another plugin store something."""
    return method == "POST" and re.fullmatch(_STOW, uri.rstrip("/")) is not None
