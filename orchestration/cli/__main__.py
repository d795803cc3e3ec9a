"""`python -m orchestration.cli` is the command `multitron`."""

from orchestration.cli.app import main

if __name__ == "__main__":
    main(prog_name="multitron")
