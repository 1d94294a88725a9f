"""The content store's part of an erasure, for the hospital's eraser and the custodian's keeper."""

import logging

from orthanc_ledger.clock import Clock
from orthanc_ledger.content import ContentStore
from orthanc_ledger.erasures import BLOCK, ROOT, Erasure, Erasures
from orthanc_ledger.errors import ContentAway
from orthanc_ledger.outbox import Outbox

LOGGER = logging.getLogger(__name__)

NOT_ERASED = "not erased here"
"""Kind of the alarm about an erased study (token) that the content store cannot forget, though it answers."""

_RETRY_S = 600


class Forgetting:
    """Has a content store forget what a study is made of. One that it cannot forget, though it answers, is an alarm,
    tried again ten minutes later, and keeps no other waiting.
    """

    def __init__(self, erasures: Erasures, content: ContentStore, outbox: Outbox, clock: Clock) -> None:
        self._erasures = erasures
        self._content = content
        self._outbox = outbox
        self._clock = clock
        self._again_at: dict[bytes, int] = {}

    def is_due(self, erasure: Erasure) -> bool:
        """Whether it may be tried now."""
        return self._clock() >= self._again_at.get(erasure.token, 0)

    def is_done(self, erasure: Erasure) -> bool:
        """Whether the store has nothing of it any more. Raises ContentAway when it is not this study alone that waits,
        ConfigError when the store must not be used.
        """
        if not self.is_due(erasure):
            return False
        token = erasure.token.hex()
        roots, blocks = (self._erasures.parts(erasure, kind) for kind in (ROOT, BLOCK))
        try:
            self._content.forget(roots, blocks)
        except ContentAway as error:
            self._content.check()
            self._again_at[erasure.token] = self._clock() + _RETRY_S
            if not self._outbox.standing(NOT_ERASED, token):
                text = f"study {token} is not erased here yet: {error}"
                self._outbox.alarm(NOT_ERASED, token, text)
                LOGGER.warning("%s", text)
            return False
        self._outbox.settle(token, kind=NOT_ERASED)
        return True
