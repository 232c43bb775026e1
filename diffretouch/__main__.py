"""`python -m diffretouch`, and what `accelerate launch --module diffretouch train DATASET` runs in every process."""

from diffretouch.cli import main

main()
