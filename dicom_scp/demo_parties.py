"""The demo's story on a consortium: what custodian and research centre do on machines of their own.

The custodian keeps a second copy; the research centre fetches from its own IPFS node; what decays is mended from
another copy; what is erased is gone with all of them.
"""

import time
from contextlib import ExitStack

from pydicom import dcmread

from dicom_scp import demo_peers as peers
from dicom_scp.demo_consortium import GRACE_S, ConsortiumNode, block_name
from dicom_scp.demo_node import expect, poll, short
from dicom_scp.demo_story import Story, step

_ROLES = ("owner", "custodian", "research")
_WAIT_S = 60.0  # others' processes, maybe beside others' work


class PartiesStory(Story):
    """``node`` is the hospital's."""

    trail = Story.trail - {"FlagTampered"} | {
        *("ConfirmStored", "LogRetrieval", "ReportRepair", "RequestErase", "ConfirmErase", "ErasureDone")
    }
    lists_records = False  # twice as many

    def __init__(self, node: ConsortiumNode) -> None:
        super().__init__(node)
        self._consortium = node

    def _goes_on(self, running: ExitStack) -> None:
        request = self._is_approved()
        self._is_closed("without a second copy, nothing")
        self._is_kept(running)
        self._is_released()
        self._is_mended()
        self._is_revoked(request)
        request = self._is_pulled()
        self._is_proven()
        self._is_erased(request)
        self._is_on_the_ledger()

    def _is_kept(self, running: ExitStack) -> None:
        node = self._consortium
        with step("the custodian's keeper confirms") as shown:
            expect(not node.blocks("custodian"), "the custodian's Kubo has blocks before its keeper ran")
            running.enter_context(node.keeping())
            anchors = len(node.records("Anchor"))
            poll(lambda: len(node.records("ConfirmStored")) == anchors, f"{anchors} ConfirmStored are there", _WAIT_S)
            kept = {path.name for path, is_intact in node.blocks("custodian").items() if is_intact}
            own = {path.name for path in node.blocks("owner")}
            expect(kept == own, f"expected the hospital's {len(own)} blocks on the custodian's Kubo, got {len(kept)}")
            shown.found(f"{len(kept)} blocks on its Kubo")
            for confirmed in node.records("ConfirmStored"):
                shown.found(f"ConfirmStored at ledger position {confirmed['sequence']}")

    def _is_mended(self) -> None:
        node = self._consortium
        with step("a byte on the Kubo is changed") as shown:
            name = block_name(node.sealed_files()[0].read_bytes())
            (block,) = (path for path in node.blocks("owner") if path.stem == name)
            block.chmod(0o600)
            offset = node.change_one_byte(block)
            shown.found(f"byte {offset} of block {short(name)}")
        with step("it is mended from a good copy") as shown:
            count = self._gets_all()
            expect(node.blocks("owner")[block], "the block is still damaged")
            poll(lambda: node.records("ReportRepair"), "ReportRepair is on the ledger")
            (repair,) = node.records("ReportRepair")
            shown.found(f"research got all {count} objects", f"ReportRepair at ledger position {repair['sequence']}")

    def _is_pulled(self) -> str:
        node, keys = self._consortium, self._consortium.folder / "keys"
        with step("research asks to fetch itself") as shown:
            node.at_research("keypair", "--out", keys)
            request = self._ask(shown, "--public-key", keys / "public.key")
            self._approve(request, shown)
        with step("research pulls to its own Kubo") as shown:
            expect(not node.blocks("research"), "the research centre's Kubo has blocks before it pulled")
            (pulled,) = node.pull(request)
            files = sorted((node.folder / "studies").rglob("*.dcm"))
            uids = {path: str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in files}
            self._expect_as_sent({uid: peers.encoded_data_set(path) for path, uid in uids.items()}, len(self._sent))
            poll(lambda: node.records("LogRetrieval"), "LogRetrieval is on the ledger")
            self._outcomes.append((len(files), 0))
            (told,) = node.records("LogRetrieval")
            expect(told["args"]["outcome"] == "complete", f"LogRetrieval: {told['args']['outcome']}")
            shown.found(
                f"{pulled['objects']} files as sent, keys over HTTPS, {len(node.blocks('research'))} blocks over IPFS",
                f"LogRetrieval at ledger position {told['sequence']}",
            )
        return request

    def _is_erased(self, request: str) -> None:
        node = self._consortium
        token = node.records("Anchor")[0]["args"]["study"]
        with step("the hospital asks for erasure") as shown:
            node.signed("owner", "erase", "request", self._study)
            asked_s = time.monotonic()
            shown.found(f"the custodian may confirm after {GRACE_S} s; in a hospital after 7 days")
        self._is_closed("research gets nothing meanwhile", "withdrawn")
        with step("the custodian confirms") as shown:
            poll(lambda: time.monotonic() > asked_s + GRACE_S, "the time of grace is over")
            node.signed("custodian", "erase", "confirm", token, "--yes")
            shown.found(f"{time.monotonic() - asked_s:.0f} s after it was asked")
            node.at_research("pulled", "--forget-erased")
            poll(lambda: len(node.records("ErasureDone")) == len(_ROLES), "ErasureDone by all", _WAIT_S)
            done = [record["by"].partition(" ")[0] for record in node.records("ErasureDone")]
            shown.found(f"ErasureDone by {', '.join(sorted(done))}")
        with step("nothing is left of the study") as shown:
            left = {role: len(node.blocks(role)) for role in _ROLES}
            expect(not any(left.values()), f"expected no block on any Kubo, got {left}")
            expect(not node.sealed_files(), "sealed objects are left at the hospital")
            files = [path for path in (node.folder / "studies").rglob("*") if path.is_file()]
            expect(not files, f"{len(files)} files of the study are left at the research centre")
            node.pull(request, "--study", token, code=1)
            self._refused += 1
            shown.found(f"no block on {len(_ROLES)} Kubo nodes", "no sealed object and no file", "a pull gets nothing")
        self._is_closed("research sees and gets nothing")
