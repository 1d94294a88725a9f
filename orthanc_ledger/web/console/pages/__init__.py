"""The console's pages."""

from orthanc_ledger.web.console.pages import alarms, approval, audit, overview, queues, requests, studies, study
from orthanc_ledger.web.console.visit import Route

_PAGES = (overview, studies, study, queues, alarms, requests, approval, audit)

ROUTES: tuple[Route, ...] = tuple(route for page in _PAGES for route in page.ROUTES)
"""Every page that somebody who is logged in may ask for; of several that fit the first counts."""
