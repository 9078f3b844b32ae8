"""`effovpr doctor`: what this machine has, what is missing, and the command that mends it."""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from effovpr_ros.cli.options import Subparsers, command, print_json
from effovpr_ros.core.errors import ConfigError, EngineError, WeightsError
from effovpr_ros.core.version import version
from effovpr_ros.engines.catalogue import ENGINES, EngineKind, what_is_missing

# Of the default model's local descriptors of a place.
_PLACE_BYTES = 529 * 46


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        item: that was looked for.
        found: what there is of it.
        remedy: command or hint that mends it; empty where nothing is missing.
        required: whether the package needs it.
    """

    item: str
    found: str
    remedy: str
    required: bool


@dataclass(frozen=True)
class Diagnosis:
    """What this machine has.

    Attributes:
        findings: one for each item.
    """

    findings: Sequence[Finding]


def add_parser(commands: Subparsers, summary: str) -> None:
    """Add the command."""
    parser = command(commands, "doctor", summary, "effovpr doctor")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    findings = examine()
    if options.json:
        print_json(Diagnosis(findings))
    else:
        for finding in findings:
            mark = "ok     " if not finding.remedy else "MISSING" if finding.required else "absent "
            print(f"{mark} {finding.item:26}{finding.found}")
            if finding.remedy:
                print(f"        -> {finding.remedy}")
        print(
            "to report a fault, paste all of the above, the command, and its output by `effovpr -v ...`",
            file=sys.stderr,
        )
    return 1 if any(finding.remedy and finding.required for finding in findings) else 0


def examine() -> list[Finding]:
    """Look at everything that the package can use."""
    python = Finding("python", f"{platform.python_version()} ({sys.executable}), {platform.platform()}", "", True)
    package = Finding("effovpr_ros", f"{version()} ({Path(__file__).parents[1]})", "", True)
    findings = [package, python, Finding("cpu", f"{os.cpu_count()} cores, {platform.machine()}", "", True)]
    for distribution in (
        "torch",
        "timm",
        "faiss-cpu",
        "numpy",
        "opencv",
        "pyproj",
        "rosbags",
        "scipy",
        "jinja2",
        "matplotlib",
        "kornia",
        "poselib",
    ):
        findings.append(_distribution(distribution))
    findings += [_gpu(), _weights(), *_engines()]
    built = "colcon build, or pip install ."
    findings.append(_reranking(built))
    ros_remedy = "source /opt/ros/<distro>/setup.bash, or run `make setup` and `source scripts/env.sh`"
    findings.append(_module("rclpy", ros_remedy, lambda: os.environ.get("ROS_DISTRO", "from wheels")))
    findings.append(_module("effovpr_ros.msg", f"colcon build; {ros_remedy}", lambda: "messages are built"))
    for module, remedy in (
        ("launch_ros", "comes with a ROS distribution; without it run the nodes directly"),
        ("vizdoom", "pip install vizdoom (for `effovpr demo` only)"),
        ("uvicorn", "pip install '.[serve]' (for `effovpr serve` only)"),
        ("ray", "pip install '.[cluster]' (for `--cluster` only)"),
    ):
        findings.append(_module(module, remedy, lambda: "installed", required=False))
    return findings


def _distribution(name: str) -> Finding:
    candidates = (
        (name, "opencv-python-headless", "opencv-python") if name == "opencv" else (name, name.removesuffix("-cpu"))
    )
    for candidate in candidates:
        try:
            return Finding(name, importlib.metadata.version(candidate), "", True)
        except importlib.metadata.PackageNotFoundError:
            continue
    if name == "opencv" and importlib.util.find_spec("cv2"):
        return Finding(name, "installed by the system", "", True)
    return Finding(name, "", f"pip install {candidates[-1]}", True)


def _module(name: str, remedy: str, describe: Callable[[], str], *, required: bool = True) -> Finding:
    try:
        found = importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        found = False
    return Finding(name, describe(), "", required) if found else Finding(name, "", remedy, required)


def _reranking(built: str) -> Finding:
    try:
        return replace(_module("effovpr_ros.matching._scoring", built, _kernel), item="re-ranking")
    except ConfigError as error:
        return Finding("re-ranking", "", str(error), True)


def _kernel() -> str:
    from effovpr_ros.matching.compiled import kernel_name, kernels

    return f"{kernel_name()}, the fastest of {', '.join(kernels())}" if kernel_name() == kernels()[0] else kernel_name()


def _gpu() -> Finding:
    import torch

    if torch.cuda.is_available():
        from effovpr_ros.mapping.resident_codes import room_on

        room = f"room for the local descriptors of {room_on('cuda') // _PLACE_BYTES:,} places"
        return Finding("gpu", f"{torch.cuda.get_device_name(0)}, CUDA {torch.version.cuda}, {room}", "", False)
    remedy = "none is needed; with an NVIDIA GPU install its driver and a CUDA build of torch"
    return Finding("gpu", f"torch {torch.__version__} sees none, the CPU is used", remedy, False)


def _engines() -> list[Finding]:
    return [*(_engine(kind) for kind in ENGINES.values()), *_choices()]


def _engine(kind: EngineKind) -> Finding:
    import torch

    if kind.device == "cuda" and not torch.cuda.is_available():
        return Finding(f"engine {kind.name}", f"{kind.summary}; not for this machine, see gpu", "", False)
    missing = what_is_missing(kind.name)
    return Finding(f"engine {kind.name}", "" if missing else kind.summary, missing, False)


def _choices() -> list[Finding]:
    """What `auto` has chosen on this machine, a line a network and reading."""
    from effovpr_ros.engines.selection import kept_choices

    try:
        choices = kept_choices()
    except EngineError as error:
        return [Finding("auto", "", str(error), False)]
    if not choices:
        return [Finding("auto", "nothing is chosen yet: the first node or long command does it", "", False)]
    return [Finding("auto", f"{network}: {choice}", "", False) for network, choice in choices]


def _weights() -> Finding:
    from effovpr_ros.features.weights import offline_weights_path

    try:
        return Finding("offline weights", str(offline_weights_path()), "", True)
    except WeightsError as error:
        return Finding("offline weights", "", str(error), True)
