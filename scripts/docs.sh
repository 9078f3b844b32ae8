#!/usr/bin/env bash
# Builds the site in build/site; a warning, such as a broken link, is an error.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
set +u; source scripts/env.sh; set -u  # colcon reads variables that are not set
python -P scripts/make_docs.py build/docs
tools=build/docs-env
if [ ! -f "$tools/.done" ] || [ requirements/docs.txt -nt "$tools/.done" ]; then
    "$VIRTUAL_ENV/bin/python" -m venv --clear "$tools"
    "$tools/bin/pip" install -q -r requirements/docs.txt
    touch "$tools/.done"
fi
"$tools/bin/zensical" build --strict --clean -f mkdocs.yml
