#!/bin/sh
# Create or refresh a virtual environment that has taut, editable, at the tested versions.
#
# usage: tools/venv.sh FOLDER EXTRAS PYTHON...
#
# EXTRAS is a comma-separated list, or "core" for none. The first PYTHON that is 3.11 or newer
# is used. Nothing is done when the stamp left by an earlier run is newer than what it depends on.
set -eu

folder=$1
extras=$2
shift 2
project=$(pwd)
stamp=$folder/.installed-$extras

is_current() {
    [ -f "$stamp" ] || return 1
    [ "$(cat "$stamp")" = "$project" ] || return 1 # the project folder was moved or copied
    "$folder/bin/python" -c "" 2>/dev/null || return 1
    [ -z "$(find pyproject.toml constraints.txt tools/venv.sh -newer "$stamp")" ]
}

explain_no_python() {
    echo "taut needs Python 3.11 or newer; looked for: $*." >&2
    echo "Install one (Debian: apt-get install python3 python3-venv; macOS: brew install python@3.12)" >&2
    echo "or name yours: make PYTHON=/path/to/python3.12" >&2
    exit 1
}

explain_no_venv() {
    version=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    echo "$1 cannot create virtual environments (its venv or ensurepip module is missing)." >&2
    echo "On Debian and Ubuntu: apt-get install python$version-venv" >&2
    exit 1
}

# A partly made environment (an interrupted run) and one of a moved project are both made anew.
make_environment() {
    if [ -f "$folder/pyvenv.cfg" ] && [ -x "$folder/bin/pip" ] \
        && "$folder/bin/pip" --version >/dev/null 2>&1 && [ "$(cat "$folder/.project" 2>/dev/null)" = "$project" ]
    then
        return
    fi
    python=$(sh tools/find-python.sh "$@") || explain_no_python "$@"
    "$python" -c "import venv, ensurepip" 2>/dev/null || explain_no_venv "$python"
    echo "making $folder with $("$python" --version)"
    if [ -f "$folder/pyvenv.cfg" ]; then rm -rf "$folder"; fi
    "$python" -m venv "$folder"
    echo "$project" >"$folder/.project"
}

if is_current; then exit 0; fi
make_environment "$@"
target=.
if [ "$extras" != core ]; then target=".[$extras]"; fi
echo "installing taut with: $extras (minutes on the first run)"
"$folder/bin/python" -m pip install -qq --disable-pip-version-check -c constraints.txt -e "$target"
echo "$project" >"$stamp"
