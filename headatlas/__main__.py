"""`python -m headatlas` is the `headatlas` command."""

from headatlas.cli import main

main()
