#!/bin/sh
# Makes the virtual environment $1 and installs this project with the extra $2 into it.
# Works on a bare Debian 12, whose python3 comes without ensurepip and pip.
set -eu
venv=$1
extra=$2
python=${PYTHON:-python3}

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
    echo "secagg needs Python 3.11 or newer; '$python' is not. Name another: make PYTHON=python3.11 ..." >&2
    exit 2
fi

if [ ! -x "$venv/bin/pip" ]; then
    rm -rf "$venv"
    if "$python" -c 'import ensurepip' 2>/dev/null; then
        "$python" -m venv "$venv"
    elif "$python" -m pip --version >/dev/null 2>&1; then
        "$python" -m venv --without-pip "$venv"
        "$python" -m pip --python "$venv/bin/python" install --quiet pip
    elif [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "installing Debian's python3-venv (this python has neither ensurepip nor pip)"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq python3-venv >/dev/null
        "$python" -m venv "$venv"
    else
        echo "this python has neither ensurepip nor pip. Install one as root: apt-get install python3-venv" >&2
        exit 2
    fi
fi

echo "installing secagg[$extra] into $venv (once; a minute or two)"
"$venv/bin/pip" install --quiet --disable-pip-version-check -c constraints.txt -e ".[$extra]"
