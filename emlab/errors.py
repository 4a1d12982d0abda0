"""The one error that emlab raises on purpose."""


class EmlabError(Exception):
    """Something a user can mend.

    Its text is one sentence: what is wrong, where, and the mend. The command line prints that sentence and exits
    with code 2; a traceback is shown only with `--debug`. Any other exception is a bug in emlab.
    """
