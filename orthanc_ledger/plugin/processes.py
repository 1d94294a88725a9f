"""The node's processes, which the plugin starts with Orthanc, watches, and ends with it; or only looks for."""

import logging
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import orthanc

from orthanc_ledger.config import Config
from orthanc_ledger.errors import ConfigError, ServiceAway
from orthanc_ledger.plugin import events
from orthanc_ledger.plugin.settings import SECTION, Settings
from orthanc_ledger.serve import SERVE_LOCK, SUPERVISED
from orthanc_ledger.sole import Shared

LOGGER = logging.getLogger(__name__)

_STOP_S = 60.0  # `serve` ends within less
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0  # before it is started again
_LOOK_S = 30.0
_HERE = Path(__file__).resolve()


def register(settings: Settings, config: Config) -> None:
    """Have the processes run, or looked for, from when Orthanc has started until it stops.

    Raises ConfigError when the Python that is to run them is not known, or not there.
    """
    part: Service | Watch
    if settings.serve:
        options = ["--config", str(settings.configuration)]
        part = Service([str(_python(settings)), "-m", "orthanc_ledger", *options, "serve", SUPERVISED])
    else:
        part = Watch(config.data_dir / SERVE_LOCK)
    run = threading.Thread(target=part.run, daemon=True, name="processes")
    events.listen(orthanc.ChangeType.ORTHANC_STARTED, lambda *_: run.start())
    events.listen(orthanc.ChangeType.ORTHANC_STOPPED, lambda *_: part.stop())


class Service:
    """`orthanc-ledger serve`, started anew whenever it ends. Its standard input is a pipe from here, and it ends when
    that closes: it does not outlive an Orthanc that was killed.
    """

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._changed = threading.Condition()
        self._process: subprocess.Popen[str] | None = None
        self._is_stopping = False

    def run(self) -> None:
        """Until `stop`, or until it says that its configuration is wrong."""
        pause_s = _FIRST_PAUSE_S
        while True:
            began = time.monotonic()
            try:
                process = self._start()
                if process is None:
                    return
                code = process.wait()
                why = f"ended with {code}"
            except OSError as error:
                code, why = 1, f"cannot be started: {error}"
            with self._changed:
                self._process = None
                self._changed.notify_all()
                if self._is_stopping:
                    return
                if code == 2:
                    LOGGER.error("the node's processes do not run: correct what is said above, then start Orthanc anew")
                    return
                LOGGER.error("the node's processes %s: starting them again", why)
                lasted_s = time.monotonic() - began
                pause_s = _FIRST_PAUSE_S if lasted_s > _LONGEST_PAUSE_S else min(pause_s * 2, _LONGEST_PAUSE_S)
                self._changed.wait_for(lambda: self._is_stopping, pause_s)

    def stop(self) -> None:
        """End it, and wait until all its processes have ended."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify_all()
            if self._process is None:
                return
            assert self._process.stdin is not None
            self._process.stdin.close()
            if not self._changed.wait_for(lambda: self._process is None, _STOP_S):
                self._process.kill()

    def _start(self) -> "subprocess.Popen[str] | None":
        with self._changed:
            if self._is_stopping:
                return None
            process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
            )
            self._process = process
        assert process.stderr is not None
        threading.Thread(target=_pass_on, args=(process.stderr,), daemon=True, name="processes' log").start()
        return process


class Watch:
    """Tells the log whether the node's processes run, where others start them."""

    def __init__(self, lock: Path) -> None:
        self._lock = lock
        self._stopping = threading.Event()

    def run(self) -> None:
        """Until `stop`."""
        ran: bool | None = None
        while True:
            runs = self._runs()
            if runs and ran is False:
                LOGGER.warning("the node's processes run")
            if not runs and ran is not False:
                LOGGER.error('the node\'s processes do not run: start `orthanc-ledger serve`, or say "Serve": true')
            ran = runs
            if self._stopping.wait(_LOOK_S):
                return

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()

    def _runs(self) -> bool:
        try:
            Shared(self._lock, ServiceAway("held")).close()
        except ServiceAway:
            return True
        return False


def _python(settings: Settings) -> Path:
    """The Python that runs the processes: the one that is named, else that of the virtual environment this is in."""
    if settings.python is not None:
        python = settings.python
    elif environment := next((folder for folder in _HERE.parents if (folder / "pyvenv.cfg").is_file()), None):
        python = environment / "bin" / "python3"
    else:
        raise ConfigError(f'"{SECTION}": "Python": missing: the Python that runs the node\'s processes')
    if not (os.access(python, os.X_OK) and python.is_file()):
        raise ConfigError(
            f'"{SECTION}": "Python": {python}: expected the Python that runs the node\'s processes, and that the user '
            "who runs Orthanc may run"
        )
    return python


_LEVELS: dict[str, Callable[..., None]] = {
    " DEBUG ": LOGGER.debug,
    " INFO ": LOGGER.info,
    " WARNING ": LOGGER.warning,
}


def _pass_on(lines: Iterable[str]) -> None:
    """What the processes say goes to Orthanc's log; what has no level, as the message of an end, is an error."""
    for line in lines:
        say = next((say for level, say in _LEVELS.items() if level in line), LOGGER.error)
        say("%s", line.rstrip())
