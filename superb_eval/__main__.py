"""`python -m superb_eval`, which launchers such as torchrun need."""

from superb_eval.cli.app import main

main()
