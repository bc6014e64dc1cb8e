"""A file for each subcommand, with its arguments, its help and ``main(argv)``, which may return an exit status."""

NAMES = (
    "run",
    "tune",
    "resume",
    "status",
    "ls",
    "alpha",
    "report",
    "export",
    "claims",
    "instruments",
    "landscape",
    "watch",
    "ui",
    "completion",
)
"""The subcommands that people use, as `alphagrad --help` lists them."""
HIDDEN = ("complete",)
PARALLEL = ("run", "resume")
"""Those that torchrun may start."""
