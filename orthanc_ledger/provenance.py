"""What is known of a study, series or instance, for people: panel and console show these values, and in these words.

All times are seconds of UTC. `as_json` gives a value as JSON has it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Literal

from orthanc_ledger.arrival import ADDRESSED_AE, BACKFILL, RECONCILED, REST_USER, STOW

Level = Literal["study", "series", "instance"]


class State(StrEnum):
    """What a person needs to know first; the text is what is shown. Of several the first here is a study's."""

    ERASED = "erased"
    DAMAGED = "withheld: differs from its anchor"
    CONFLICT = "conflict"
    QUARANTINED = "quarantined"
    ERASURE_REQUESTED = "erasure requested"
    WITHDRAWN = "withdrawn"
    WAITING = "waiting"
    UNDER_CUSTODY = "under custody"
    BEFORE_INSTALLATION = "not under custody (before installation)"
    NOT_HELD = "not under custody"


class Tone(StrEnum):
    """How loudly something is shown; never by colour alone."""

    GOOD = "good"
    NEUTRAL = "neutral"
    ATTENTION = "attention"
    DANGER = "danger"


TONES: Mapping[State, Tone] = {
    State.ERASED: Tone.NEUTRAL,
    State.DAMAGED: Tone.DANGER,
    State.CONFLICT: Tone.ATTENTION,
    State.QUARANTINED: Tone.ATTENTION,
    State.ERASURE_REQUESTED: Tone.NEUTRAL,
    State.WITHDRAWN: Tone.NEUTRAL,
    State.WAITING: Tone.NEUTRAL,
    State.UNDER_CUSTODY: Tone.GOOD,
    State.BEFORE_INSTALLATION: Tone.NEUTRAL,
    State.NOT_HELD: Tone.NEUTRAL,
}

MEANING: Mapping[State, str] = {
    State.ERASED: "The study was erased on the ledger's word: nothing of it is kept or given to anybody.",
    State.DAMAGED: "What is stored differs from what was anchored and has no healthy copy: nobody is given it.",
    State.CONFLICT: "Other content came under the same UID. The first content stays in use until a person decides.",
    State.QUARANTINED: "It could not be read and is not anchored. It is kept as it came until a person decides.",
    State.ERASURE_REQUESTED: "Erasure was requested: research gets nothing of it. It is decided by both parties.",
    State.WITHDRAWN: "Withdrawn from research. Clinical use is unchanged.",
    State.WAITING: "Received and kept safely; it will be anchored on the ledger by itself.",
    State.UNDER_CUSTODY: "Anchored on the ledger as it was received, and kept.",
    State.BEFORE_INSTALLATION: "It was here before the chain of custody began. `orthanc-ledger backfill` takes it in.",
    State.NOT_HELD: "The node has nothing of it.",
}

WAYS: Mapping[str, str] = {
    "tls-modality": "C-STORE over TLS",
    ADDRESSED_AE: "C-STORE",
    REST_USER: "upload to Orthanc",
    STOW: "STOW-RS",
    BACKFILL: "backfill",
    RECONCILED: "fetched from Orthanc",
}
"""Origin (docs/manifest.md) → how an object came."""


@dataclass(frozen=True)
class Counts:
    """How many objects; ``held`` are all that the node has of it, each of the others some of those, but ``earlier``:
    what came to Orthanc before the plugin and was not taken.
    """

    held: int = 0
    earlier: int = 0
    anchored: int = 0
    waiting: int = 0
    quarantined: int = 0
    conflicts: int = 0
    damaged: int = 0
    withdrawn: int = 0
    superseded: int = 0


@dataclass(frozen=True)
class Anchored:
    """A manifest on the ledger. ``position``: docs/contract.md, *Sequence*; ``time`` and ``stored`` (whether the
    custodian holds it) are None while the ledger is away.
    """

    manifest: str
    position: int
    count: int
    time: int | None = None
    stored: bool | None = None


@dataclass(frozen=True)
class Origin:
    """``count`` objects that came one way (docs/manifest.md, `origin`) from one sender, from ``first`` to ``last``."""

    origin: str
    sender: str
    count: int
    first: int
    last: int

    @property
    def way(self) -> str:
        """How they came."""
        return WAYS.get(self.origin, self.origin)


@dataclass(frozen=True)
class Check:
    """The last sweep that verified all of it: between ``begun`` and ``ended``."""

    begun: int
    ended: int


@dataclass(frozen=True)
class Released:
    """What one request was given: to whom, why, when. ``released`` objects were allowed to leave, ``sent`` of them
    began to; None: not all told yet. ``request`` in hex; ``purposes`` in DUO's words, ``state`` and ``until`` the
    request's; ``is_certain``: of a series or an instance, whether it was among them, or may have been.
    """

    organisation: str
    ae_title: str
    request: str
    purposes: tuple[str, ...]
    state: str
    until: int | None
    first: int
    last: int
    released: int
    sent: int | None
    is_certain: bool = True


@dataclass(frozen=True)
class Advice:
    """Alarms of one kind and what a person does about them: ``count`` of them, the first of which says ``text``."""

    since: int
    kind: str
    text: str
    what_to_do: str
    tone: Tone
    count: int = 1


@dataclass(frozen=True)
class Event:
    """One thing that happened to a study. ``who``: organisation and role, empty for the node's own; ``position``: on
    the ledger, None for what only the node knows.
    """

    time: int
    what: str
    who: str = ""
    detail: str = ""
    position: int | None = None
    tone: Tone = Tone.NEUTRAL


@dataclass(frozen=True)
class Provenance:
    """All that is known of one study, series or instance.

    ``since``: from when on the state is so, where that is known; ``object``: CID of an instance's sealed object;
    ``checked`` None: no sweep has come to all of it yet; ``ledger_away``: why what only the ledger knows is not known
    now, None when it is.
    """

    level: Level
    uid: str
    study_uid: str
    state: State
    tone: Tone
    since: int | None = None
    counts: Counts = field(default_factory=Counts)
    object: str | None = None
    anchors: tuple[Anchored, ...] = ()
    origins: tuple[Origin, ...] = ()
    checked: Check | None = None
    releases: tuple[Released, ...] = ()
    alarms: tuple[Advice, ...] = ()
    ledger_away: str | None = None


def as_json(value: Provenance | Event) -> dict[str, Any]:
    """A value as JSON has it; of a Provenance also what its state means, and how its objects came."""
    shown = asdict(value)
    if isinstance(value, Provenance):
        shown["meaning"] = MEANING[value.state]
        shown["origins"] = [{**asdict(origin), "way": origin.way} for origin in value.origins]
    return shown
