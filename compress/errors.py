"""Errors that a user can mend: each says what is wrong, where, and the cure. A traceback means a bug of ours."""


class CompressError(Exception):
    """Base of every error shown without a traceback; `exit_code` is what the command returns."""

    exit_code = 1


class InputError(CompressError):
    """The recipe, the command line, a file or a folder is not usable as given."""

    exit_code = 2


class ConfigAloneError(InputError):
    """Weights or text were asked for where nothing but a config is known of the model."""


class ModelError(CompressError):
    """The model is not understood."""

    exit_code = 3


class BudgetError(CompressError):
    """The budget cannot be met; the message says the nearest that can."""

    exit_code = 4


class VerifyError(CompressError):
    """What was written does not behave as the plan says; it is kept beside the target as `.partial`."""

    exit_code = 5
