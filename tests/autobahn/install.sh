#!/usr/bin/env bash
# Installs the Autobahn fuzzing client (`wstest`) and what it runs on under a directory.
#
#   install.sh DIR        needs bash, Python 3 with venv, and a CPython 2.7 with ssl and zlib:
#                         $PYTHON27, pyenv's, or one on PATH; none is downloaded
#
# The suite speaks Python 2 alone. It comes from PyPI unmodified, every package pinned, into a
# virtual environment of its own. Exit 0: DIR is ready, perhaps from an earlier call; 3: there is
# no Python 2.7; else: what failed has said so.
#
# Runs no case; run.py does. Called by tests/run.
set -euo pipefail

dir=${1:?install.sh DIR}
stamp=$dir/.installed

suite=autobahntestsuite==25.10.1
# In two steps, because the second is built with the first.
tools=(setuptools==44.0.0 wheel==0.37.1 six==1.16.0 incremental==16.10.1 zope.interface==4.6.0
    attrs==21.4.0 idna==2.10 typing==3.10.0.0 hyperlink==21.0.0 constantly==15.1.0
    Automat==22.10.0 PyHamcrest==1.10.1)
packages=(autobahn==0.10.9 txaio==2.1.0 Twisted==19.10.0 wsaccel==0.6.6 ujson==2.0.3
    pyOpenSSL==19.1.0 cryptography==3.3.2 cffi==1.15.1 pycparser==2.21 enum34==1.1.10
    ipaddress==1.0.23 service_identity==18.1.0 pyasn1==0.5.1 pyasn1-modules==0.3.0 klein==17.10.0
    Werkzeug==1.0.1 Jinja2==2.11.3 MarkupSafe==1.1.1 unittest2==1.1.0 traceback2==1.4.0
    linecache2==1.0.0 argparse==1.4.0)
# The last virtualenv that makes environments for 2.7; the pip they need comes with it.
makers=(virtualenv==20.21.1 platformdirs==3.11.0 distlib==0.3.9 filelock==3.13.4)

is_python27() {
    "$1" -c 'import sys, ssl, zlib; sys.exit(sys.version_info[:2] != (2, 7))' >/dev/null 2>&1
}

find_python27() {
    local found
    for found in "${PYTHON27:-}" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/2.7*/bin/python2.7 \
        "$(command -v python2.7 || true)" "$(command -v python2 || true)"; do
        [ -z "$found" ] || ! is_python27 "$found" || { printf '%s\n' "$found"; return; }
    done
    return 3
}

python27=$(find_python27) || { echo "there is no Python 2.7 with ssl and zlib (set PYTHON27)"; exit 3; }

wanted=$(printf '%s\n' "$python27" "$suite" "${tools[@]}" "${packages[@]}" "${makers[@]}")
if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    echo "unchanged in $dir"
    exit
fi

rm -rf "$dir"
mkdir -p "$dir"
python3 -m venv "$dir/maker"
"$dir/maker/bin/pip" install --quiet --disable-pip-version-check --no-input "${makers[@]}"
"$dir/maker/bin/virtualenv" --quiet --no-download -p "$python27" "$dir/venv"

install() {
    PYTHONWARNINGS=ignore "$dir/venv/bin/pip" install --quiet --disable-pip-version-check \
        --no-input --no-deps --no-build-isolation "$@" 2>&1 |
        { grep -v '^DEPRECATION: Python 2.7' || true; }
}
install "${tools[@]}"
install "${packages[@]}"
install "$suite"

# The helpers in C keep the client from being what the large cases wait for.
"$dir/venv/bin/python" -c 'import wsaccel, zlib'
"$dir/venv/bin/wstest" -a
printf '%s\n' "$wanted" >"$stamp"
