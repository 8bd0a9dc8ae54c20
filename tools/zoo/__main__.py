"""`python -m zoo`."""

from zoo.command import main

main()
