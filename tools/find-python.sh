#!/bin/sh
# Print the first of the named interpreters that exists, runs, and is Python 3.11 or newer.
#
# usage: tools/find-python.sh NAME...      (such as python3.12 or a path)
#
# pyenv's interpreters are found too, even those that its shims do not offer at the moment.
set -eu

runs() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

for name in "$@"; do
    for candidate in "$name" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.*/bin/"$name"; do
        if runs "$candidate"; then
            echo "$candidate"
            exit 0
        fi
    done
done
exit 1
