"""`engine: auto` beside the work at hand: a process of its own finds the fastest engine, a thread opens it.

The first engine that is faster than PyTorch takes over while the others are still tried, and the fastest at the end.

A process, since an export keeps Python busy for seconds and leaves libraries behind that nothing needs later, and
since it can be given what the work at hand leaves of the processor.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from tempfile import TemporaryFile
from typing import Any

import torch

from effovpr_ros.core.errors import EffoVPRError
from effovpr_ros.engines.catalogue import AUTO, TORCH
from effovpr_ros.engines.runtime import RunningEngine
from effovpr_ros.features.extractor_config import ExtractorConfig

_logger = logging.getLogger(__name__)

SEEKING = "the fastest is being found"
"""How `EngineTakeover.state` begins as long as it is not over."""

_NICENESS = 2
# Away from the signals of a terminal, but not in a session of its own, where Linux would give the search the processor
# as if it was as urgent as the work at hand (see "autogroup" in sched(7)).
_OWN_GROUP: dict[str, Any] = {"process_group": 0} if sys.version_info >= (3, 11) else {"preexec_fn": os.setpgrp}
_PROGRAM = __name__
_FASTER = "faster than PyTorch: "


class EngineTakeover:
    """Finds and opens the fastest engine of a model; PyTorch runs it meanwhile."""

    def __init__(self, config: ExtractorConfig, open_engine: Callable[[str], RunningEngine]) -> None:
        """Begin; returns at once.

        Args:
            config: of the model.
            open_engine: opens an engine by its name; of `auto` the one that was chosen.
        """
        self._started_s = time.monotonic()
        self._open_engine = open_engine
        self._failure = ""
        self._runs = "PyTorch"
        self._found: RunningEngine | None = None
        self._is_over = False
        # In a file, since nobody reads it before the process has ended.
        self._errors = TemporaryFile("w+")  # noqa: SIM115 `_run` closes it
        # A newer Python can be told that the folder at hand holds no modules.
        flags = ["-P"] if sys.version_info >= (3, 11) else []
        arguments = [json.dumps(asdict(config)), str(torch.get_num_threads())]
        self._process = subprocess.Popen(
            [sys.executable, *flags, "-m", _PROGRAM, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            **_OWN_GROUP,
        )
        self._thread = threading.Thread(target=self._run, name="engine takeover", daemon=True)
        self._thread.start()

    @property
    def state(self) -> str:
        """What happens, for people."""
        if self._failure:
            return f"{self._runs} goes on: {self._failure}"
        if self._is_over:
            return "found"
        return f"{SEEKING} for {time.monotonic() - self._started_s:.0f} s"

    def take(self) -> RunningEngine | None:
        """An engine once it is ready; None before, and until there is a faster one."""
        found, self._found = self._found, None
        return found

    def wait(self) -> None:
        """Until there is an engine, or none will be."""
        self._thread.join()

    def close(self) -> None:
        """Give up; returns at once."""
        self._process.kill()

    def _run(self) -> None:
        # Without `communicate`, which would close the pipe whose end the process takes for the end of this one.
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        with stdin, stdout, self._errors:
            for line in stdout:
                if line.startswith(_FASTER):
                    self._open(line.removeprefix(_FASTER).strip())
            code = self._process.wait()
            self._errors.seek(0)
            errors = self._errors.read()
        if code:
            self._failure = errors.strip().rpartition("\n")[2][:300] or f"the search ended with {code}"
        else:
            self._open(AUTO)
        self._is_over = True
        if self._failure and code >= 0:
            _logger.warning("engine auto: %s goes on: %s", self._runs, self._failure)

    def _open(self, name: str) -> None:
        try:
            found = self._open_engine(name)
        except Exception as error:  # runtimes raise what they like; what runs goes on
            self._failure = f"{type(error).__name__}: {str(error)[:300]}"
        else:
            self._found, self._runs, self._failure = found, found.name, ""


def describe_engine(config: ExtractorConfig, engine: RunningEngine, takeover: EngineTakeover | None) -> dict[str, str]:
    """The engine in use and how it came to be that, for people."""
    if engine.choice is not None:
        why = str(engine.choice)
    elif takeover is not None:
        why = takeover.state
    else:
        why = "not measured" if config.engine == AUTO else "named"
    return {"engine": engine.name, "engine_choice": why}


def main(arguments: Sequence[str]) -> int:
    """The process: choose, and keep the choice.

    Args:
        arguments: the model's configuration as JSON, and the number of threads that the network may use.
    """
    from effovpr_ros.features.extractor import FeatureExtractor

    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.nice(_NICENESS)
    config, num_threads = arguments
    torch.set_num_threads(int(num_threads))
    try:
        extractor = FeatureExtractor(replace(ExtractorConfig(**json.loads(config)), engine=TORCH))
        # Libraries print between these lines, and none that begins so.
        extractor.choose_engine(lambda name: print(f"{_FASTER}{name}", flush=True))
    except EffoVPRError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _end_with_parent() -> None:
    """The parent never writes: what is read is its end."""
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
