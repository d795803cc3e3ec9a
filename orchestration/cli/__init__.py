"""The command line `multitron`; `python -m orchestration.cli` is the same command.

- `app`: options, help texts and exit statuses of every subcommand
- `commands`: the work of the subcommands; `read`, `demo` and `ui` have a module each
- `status`: the state of the nights as text and as JSON

Import from the modules: `app` and `read` load without torch, the others load it.
"""
