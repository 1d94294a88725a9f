"""Which HTTP requests bring Orthanc new objects: refused while the spool is below its reserve, as a C-STORE is."""

import re

# Orthanc's own routes, DICOMweb's STOW-RS and retrieval from servers behind whatever root it has, and WebDAV.
_ROUTES = {
    "POST": re.compile(
        r"/instances|/tools/(create-dicom|bulk-modify|bulk-anonymize)"
        r"|/(patients|studies|series)/[^/]+/(modify|anonymize|merge|split)"
        r"|.*/studies(/[^/]+)?|.*/servers/[^/]+/retrieve"
    ),
    "PUT": re.compile(r"/webdav/.*"),
}


def is_upload(method: str, uri: str) -> bool:
    """Whether a request has Orthanc store what it brings, makes or fetches. ``uri``: its path."""
    route = _ROUTES.get(method)
    return route is not None and route.fullmatch(uri.rstrip("/")) is not None
