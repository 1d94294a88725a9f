"""The console's pages."""

from orthanc_ledger.web.console.pages import overview, queues, studies, study
from orthanc_ledger.web.console.visit import Route

ROUTES: tuple[Route, ...] = (*overview.ROUTES, *studies.ROUTES, *study.ROUTES, *queues.ROUTES)
"""Every page that somebody who is logged in may ask for; of several that fit the first counts."""
