#!/bin/sh
# Segments the case in /input. The environment says which edition of the challenge; see `--help`.
# Nothing that lies in the current folder is taken for a Python module.
export PYTHONSAFEPATH=1
exec python -m petct_cascade.challenge_container "$@"
