"""``python -m orthanc_ledger``: the command."""

import sys

from orthanc_ledger.cli import main

sys.exit(main())
