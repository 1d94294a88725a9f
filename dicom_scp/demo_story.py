"""The demo's story on one node, step by step.

The node runs as real processes. The story sees it as its peers do, over its ports, and reads the ledger by commands
that are processes of their own.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path

from pydicom import dcmread

import orthanc_ledger
from dicom_scp import demo_peers as peers
from dicom_scp.demo_node import (
    MODALITY,
    RESEARCH,
    RESEARCH_MSP,
    DemoNode,
    StepFailed,
    expect,
    poll,
    raw_leaf_cid,
    short,
)

_SERIES = Path(orthanc_ledger.__file__).parent / "samples" / "ge-discovery-mr750" / "mr_0004"
_DAYS = 30
_START_S = 60.0  # seven processes, maybe beside others' work


@dataclass
class Step:
    """A step being shown; the facts it finds stand beside its name."""

    name: str
    facts: list[str] = field(default_factory=list)

    def found(self, *facts: str) -> None:
        """Add facts to the step's line."""
        self.facts += facts


@contextmanager
def step(name: str) -> Iterator[Step]:
    """Show a step with ✓ and its facts once the block ends well; else raise StepFailed with the step's name."""
    shown, begun = Step(name), time.monotonic()
    try:
        yield shown
    except StepFailed as error:
        raise StepFailed(f"{name}: {error}") from error
    print(f"✓ {name:<32}{', '.join(shown.facts)}  ({time.monotonic() - begun:.1f} s)", flush=True)


class Story:
    """``node`` is the node it happens on."""

    trail = frozenset(
        {
            *("InitPolicy", "Anchor", "RegisterNode", "ConfirmNode", "RequestAccess", "Approve", "Revoke"),
            *("LogRelease", "LogOutcome", "LogDenials", "FlagTampered"),
        }
    )
    """Functions of the contract that have a record in the end."""

    lists_records = True

    def __init__(self, node: DemoNode) -> None:
        self._node = node
        files = sorted(_SERIES.glob("*.dcm"))
        headers = {path: dcmread(path, stop_before_pixels=True) for path in files}
        self._files = files
        self._paths = {str(headers[path].SOPInstanceUID): path for path in files}
        self._sent = {uid: peers.encoded_data_set(path) for uid, path in self._paths.items()}
        (self._study,) = {str(header.StudyInstanceUID) for header in headers.values()}
        self._withheld = ""
        self._refused = 0
        self._outcomes: list[tuple[int, int]] = []

    def run(self) -> None:
        """All steps. Raises StepFailed."""
        with ExitStack() as running:
            with step("a node is set up") as shown:
                shown.found(*running.enter_context(self._node.set_up()))
            running.enter_context(self._node.running())
            self._starts()
            self._stores()
            self._is_anchored()
            self._is_closed("research sees and gets nothing")
            self._goes_on(running)

    def _goes_on(self, running: ExitStack) -> None:
        """What is told of a scan that is anchored; what it starts ends with ``running``."""
        request = self._is_approved()
        self._is_released()
        self._is_tampered_with()
        self._is_revoked(request)
        self._is_on_the_ledger()
        self._is_proven()

    def _starts(self) -> None:
        with step("the node starts") as shown:
            for title, port in ((MODALITY, self._node.clinical_port), (RESEARCH, self._node.research_port)):
                poll(partial(peers.answers, port, title), f"{title}'s C-ECHO is answered", _START_S)
                shown.found(f"port {port} answers {title}'s C-ECHO")

    def _stores(self) -> None:
        with step("a modality stores a series") as shown:
            sender = peers.store(self._node.clinical_port, self._files)
            shown.found(f"{len(self._files)} MR images by {sender}", "each answered 0x0000")

    def _is_anchored(self) -> None:
        count = len(self._files)
        with step("it is sealed and anchored") as shown:
            poll(lambda: sum(r["args"]["count"] for r in self._node.records("Anchor")) >= count, "it is on the ledger")
            sealed = self._node.sealed_files()
            expect(len(sealed) == count, f"expected {count} sealed objects, got {len(sealed)}")
            wrong = [path for path in sealed if path.name != raw_leaf_cid(path.read_bytes())]
            expect(not wrong, f"{len(wrong)} sealed objects are not what their CID says")
            shown.found(f"{count} objects, each under its CID")
            for record in self._node.records("Anchor"):
                shown.found(f"manifest {short(record['args']['manifestCid'])} at ledger position {record['sequence']}")

    def _is_closed(self, name: str, why: str = "no approval") -> None:
        with step(name) as shown:
            seen = peers.find_studies(self._node.research_port)
            expect(seen == 0, f"C-FIND: expected no study, got {seen}")
            answer = peers.get_study(self._node.research_port, self._study)
            expect(not answer.received, f"C-GET: expected nothing, got {len(answer.received)} objects")
            expect(
                (answer.status, answer.comment) == (0x0124, why),
                f"C-GET: expected 0x0124 '{why}', got 0x{answer.status:04X} '{answer.comment}'",
            )
            self._refused += 1
            shown.found("C-FIND: no study", f"C-GET: 0x{answer.status:04X} '{answer.comment}'")

    def _is_approved(self) -> str:
        node, tokens = self._node, self._node.folder / "tokens.json"
        with step("research asks for the study") as shown:
            node.signed("research", "nodes", "register", RESEARCH)
            node.signed("custodian", "nodes", "confirm", RESEARCH_MSP, RESEARCH)
            node.command("studies", "--study", self._study, "--for", RESEARCH_MSP, "--tokens", tokens)
            request = self._ask(shown)
        with step("owner and custodian approve") as shown:
            self._approve(request, shown)
        return request

    def _ask(self, shown: Step, *options: object) -> str:
        """The id of a new request for the study."""
        asked = ("--studies", self._node.folder / "tokens.json", "--node", RESEARCH, "--duo", "DUO:0000042")
        (request,) = self._node.signed("research", "request", *asked, "--days", _DAYS, *options)
        shown.found(f"signed request {short(request['id'])} at ledger position {request['position']}")
        return str(request["id"])

    def _approve(self, request: str, shown: Step) -> None:
        for role in ("owner", "custodian"):
            self._node.signed(role, "approve", request, "--days", _DAYS)
        (state,) = (row for row in self._node.rows("requests") if row["id"] == request)
        expect(
            (state["state"], state["approved_by"]) == ("approved", ["custodian", "owner"]),
            f"expected both approvals, got {state['state']} by {state['approved_by']}",
        )
        shown.found(f"for {_DAYS} days, until {state['until']}")

    def _is_released(self) -> None:
        with step("research gets the series") as shown:
            shown.found(f"{self._gets_all()} objects", "each byte for byte what the modality sent")

    def _gets_all(self) -> int:
        answer = peers.get_study(self._node.research_port, self._study)
        expect(answer.status == 0x0000, f"C-GET: expected 0x0000, got 0x{answer.status:04X} '{answer.comment}'")
        self._expect_as_sent(answer.received, len(self._sent))
        self._outcomes.append((len(answer.received), 0))
        return len(answer.received)

    def _is_tampered_with(self) -> None:
        node = self._node
        with step("one stored byte is changed") as shown:
            victim = node.sealed_files()[0]
            offset = node.change_one_byte(victim)
            shown.found(f"byte {offset} of {short(victim.name)}")
        with step("that object is withheld") as shown:
            answer = peers.get_study(node.research_port, self._study)
            expect(answer.status == 0xB000, f"C-GET: expected 0xB000, got 0x{answer.status:04X} '{answer.comment}'")
            expect(len(answer.failed) == 1, f"C-GET: expected 1 failed UID, got {len(answer.failed)}")
            (self._withheld,) = answer.failed
            expect(self._withheld not in answer.received, "C-GET: the failed object came all the same")
            self._expect_as_sent(answer.received, len(self._sent) - 1)
            self._outcomes.append((len(answer.received), 1))
            found = node.rows("verify", code=1)
            damaged = [(row["cid"], row["sop_instance_uid"]) for row in found if row["what"] == "object"]
            expect(
                damaged == [(victim.name, self._withheld)],
                f"verify: expected it to name the changed object as the withheld one, got {len(damaged)} objects",
            )
            shown.found(f"C-GET: 0xB000, {len(answer.received)} objects as sent, its UID in the failed list")
        with step("the ledger tells of it") as shown:
            poll(lambda: node.records("FlagTampered"), "FlagTampered is on the ledger")
            (flag,) = node.records("FlagTampered")
            shown.found(f"FlagTampered at ledger position {flag['sequence']}")

    def _is_revoked(self, request: str) -> None:
        with step("the custodian revokes") as shown:
            self._node.signed("custodian", "revoke", request, "--reason", "completed")
            (state,) = self._node.rows("requests")
            expect(state["state"] == "revoked", f"expected the request to be revoked, it is {state['state']}")
            shown.found("for good")
        self._is_closed("research gets nothing again")

    def _is_on_the_ledger(self) -> None:
        node = self._node
        with step("the audit trail is complete") as shown:
            poll(lambda: self._refusals() == self._refused, f"all {self._refused} refusals are on the ledger")
            trail = node.rows("audit")
            missing = self.trail - {record["function"] for record in trail}
            expect(not missing, f"no record of {', '.join(sorted(missing))}")
            outcomes = [(r["args"]["sent"], r["args"]["withheld"]) for r in trail if r["function"] == "LogOutcome"]
            expect(outcomes == self._outcomes, f"LogOutcome: not what was received: {outcomes}")
            shown.found(f"{len(trail)} records, of each kind that there has to be")
        for record in trail if self.lists_records else ():
            print(f"    {record['sequence']:>3}  {record['time']}  {record['function']:<14} {record['by']}")
        with step("the ledger verifies") as shown:
            shown.found(*node.checked_ledger(trail))

    def _is_proven(self) -> None:
        node, receipt, changed = self._node, self._node.folder / "receipt.json", self._node.folder / "changed.dcm"
        with step("a receipt proves one image") as shown:
            uid, path = next((uid, path) for uid, path in self._paths.items() if uid != self._withheld)
            node.command("receipt", uid, "--out", receipt)
            believed = list(chain.from_iterable(node.believed.values()))
            node.command("verify-receipt", receipt, path, *believed)
            content = bytearray(path.read_bytes())
            content[-1] ^= 1
            changed.write_bytes(content)
            node.command("verify-receipt", receipt, changed, *believed, code=1)
            names = " and ".join(node.believed)
            shown.found(f"offline, under the CA certificate of {names}", "with one bit changed it does not")

    def _refusals(self) -> int:
        return sum(record["args"]["count"] for record in self._node.records("LogDenials"))

    def _expect_as_sent(self, received: dict[str, bytes], count: int) -> None:
        expect(len(received) == count, f"C-GET: expected {count} objects, got {len(received)}")
        other = [uid for uid, data_set in received.items() if self._sent.get(uid) != data_set]
        expect(not other, f"C-GET: {len(other)} objects are not what the modality sent")
