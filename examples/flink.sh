#!/bin/sh
# Installs PyFlink into an environment of its own (its pyarrow is older than ours) and runs the example.
set -eu
cd "${0%/*}/.."
PYTHON=${PYTHON:-python3}
VENV=.venv-flink
if ! command -v java > /dev/null; then
  echo "LOUD: Flink runs on Java, and there is none here. Install a JRE 11 or 17, e.g. apt-get install default-jre-headless" >&2
  exit 3
fi
if [ ! -f "$VENV/.made" ]; then
  "$PYTHON" -m venv "$VENV"
  "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check uv
  VIRTUAL_ENV="$PWD/$VENV" "$VENV/bin/uv" pip install --quiet 'apache-flink>=2.3,<2.4' 'setuptools<81' polars
  VIRTUAL_ENV="$PWD/$VENV" "$VENV/bin/uv" pip install --quiet --no-deps -e .
  touch "$VENV/.made"
fi
exec "$VENV/bin/python" examples/flink_profile.py
