"""Nothing of what a robot runs is told to anybody: libraries that report their use are kept from it."""

from __future__ import annotations

import importlib
from typing import Any


def keep_openvino_quiet() -> None:
    """Have OpenVINO and NNCF send nothing; to be called before their first use.

    Where a user was never asked, their `openvino-telemetry` takes that for consent and reports conversions.
    """
    try:
        checker: Any = importlib.import_module("openvino_telemetry.utils.opt_in_checker")
    except ImportError:
        return

    def declined(*_: object, **__: object) -> object:
        return checker.ConsentCheckResult.DECLINED

    checker.OptInChecker.check = declined
