"""``python -m dicom_scp.demo``: one scan's whole way on real MR files, checked from outside at every step.

Exit code 0: every step did what it should; 1: a step did not, and is named.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from dicom_scp.demo_node import DemoNode, StepFailed, hold_ports
from dicom_scp.demo_orthanc import OrthancNode, OrthancStory
from dicom_scp.demo_story import Story


def main() -> int:
    """Run the demo in a temporary folder."""
    parser = argparse.ArgumentParser(prog="orthanc-ledger demo", description=__doc__)
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--consortium", action="store_true", help="on a network of its own, of Fabric and Kubo")
    place.add_argument("--orthanc", action="store_true", help="with the plugin in this machine's Orthanc")
    parser.add_argument("--keep", action="store_true", help="keep the folder and say where it is")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what was started is ended then, too
    begun, folder = time.monotonic(), Path(tempfile.mkdtemp(prefix="orthanc-ledger-demo-"))
    try:
        with ExitStack() as held:
            _story(folder, args, held).run()
        print(f"every step checked in {time.monotonic() - begun:.0f} s")
        return 0
    except StepFailed as error:
        print(f"✗ {error}", flush=True)
        if not args.keep:
            print("  with --keep the node's folder and its log, serve.log or orthanc.log, are kept")
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        _end_children()
        if args.keep:
            print(f"kept: {folder}")
        else:
            shutil.rmtree(folder)


def _story(folder: Path, args: argparse.Namespace, held: ExitStack) -> Story:
    """The story that is asked for; its ports are its own until ``held`` ends.

    Raises StepFailed when it needs something that is not installed, or more free ports than there are.
    """
    if args.orthanc:
        return OrthancStory(OrthancNode(folder, *hold_ports(4, held)))
    if not args.consortium:
        return Story(DemoNode(folder, *hold_ports(2, held)))
    try:
        from dicom_scp.demo_consortium import consortium_node  # here, because few need what they import
        from dicom_scp.demo_parties import PartiesStory
    except ModuleNotFoundError as error:
        raise StepFailed(f"{error.name} is not installed: pip install 'orthanc-ledger[consortium]'") from error
    return PartiesStory(consortium_node(folder, held))


def _end_children() -> None:
    """End what an interrupt left: it may come between a process's start and the call that was to wait for it."""
    children = Path(f"/proc/self/task/{os.getpid()}/children")  # not there on every kernel
    for pid in map(int, children.read_text().split() if children.exists() else ()):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    sys.exit(main())
