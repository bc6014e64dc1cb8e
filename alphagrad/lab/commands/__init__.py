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
    "export-model",
    "claims",
    "instruments",
    "landscape",
    "watch",
    "ui",
    "completion",
)
"""The subcommands that people use, as `alphagrad --help` lists them; a dash is an underscore in the file's name."""
HIDDEN = ("complete",)
PARALLEL = ("run", "resume")
"""Those that torchrun may start."""
