#!/bin/sh
# Segments the case in /input. The environment says which edition of the challenge; see `--help`.
exec python -m petct_cascade.challenge_container "$@"
