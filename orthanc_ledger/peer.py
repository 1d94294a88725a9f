"""Who this node talks to."""

from dataclasses import dataclass
from typing import Literal

Role = Literal["modality", "clinical", "research"]


@dataclass(frozen=True)
class Peer:
    """An application entity this node talks to.

    ``hosts`` are the addresses it may call from (empty: any, its AE title is then only a claim); ``host`` and
    ``port`` are where a
    C-MOVE to it goes. ``duplicate`` says what a C-STORE of other content under a known UID is answered: 0x0111 or
    0x0000.
    """

    ae_title: str
    role: Role
    organisation: str = ""
    hosts: tuple[str, ...] = ()
    host: str | None = None
    port: int | None = None
    duplicate: Literal["refuse", "accept"] = "refuse"
