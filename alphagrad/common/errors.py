"""Errors that are no fault of the program, each said in one line."""


class ConfigError(Exception):
    """A setting is wrong or something it points to cannot be used; nothing has been started."""


class StorageLost(RuntimeError):
    """The store or the disk gave out while a run trained; the run can go on from what was kept.

    Args:
        told: what gave out, and why.
        advice: what goes on, once that is put right.
    """

    def __init__(self, told: str, advice: str = "") -> None:
        super().__init__(told, advice)
        self.told, self.advice = told, advice

    def __str__(self) -> str:
        return f"{self.told}; once that is put right, {self.advice}" if self.advice else self.told


class FailFast(BaseException):
    """A job has failed under ``study.fail_fast=true``; no other is begun.

    It is no ``Exception``, which Hydra would take for the failure of one job among others.
    """

    SAID = "study.fail_fast=true: no other job is begun"


class JobFailed(RuntimeError):
    """A job has failed; the text is its reason, the class of its own error included."""


class Terminated(SystemExit):
    """The program ends itself: a signal came, or what was asked for has been shown.

    Every other :class:`SystemExit` comes from a user's code, and is that code's failure.
    """
