"""The command line: one thin function a verb. Results go to stdout, progress and errors to stderr."""

from typing import Any

from tinyfl.cli import ending

__all__ = ["app", "command", "main"]


def command() -> None:
    """This process: the command line, which signals end."""
    try:
        ending.prepare()  # before anything that takes a while, such as loading the verbs
        main()
    except BaseException as error:
        if ending.interrupted(error):
            ending.leave(error)
        _name_limit(error)
        raise


def _name_limit(error: BaseException) -> None:
    """Ends this process with words if ``error`` comes from a limit of this user or machine."""
    import sys

    from tinyfl.cli.common import tell
    from tinyfl.errors import ConfigError
    from tinyfl.system.limits import limit_reached

    if limit := limit_reached(error):
        tell(f"tinyfl: {limit}")
        sys.exit(ConfigError.exit_code)


def main() -> None:
    """Runs the command line; a TinyflError becomes its message on stderr and its exit code."""
    import errno
    import sys

    from tinyfl.cli import renamed
    from tinyfl.cli.common import tell
    from tinyfl.errors import RunError, TinyflError
    from tinyfl.errors.words import message, plain
    from tinyfl.system.encoding import write_what_can_be

    write_what_can_be(sys.stdout, sys.stderr)
    words, hints = renamed.current(sys.argv[1:])
    for hint in hints:
        tell(hint)
    try:
        _verbs()(words, prog_name="tinyfl")
    except TinyflError as error:
        if ending.interrupted(error):
            raise
        tell(f"tinyfl: {message(error)}")
        sys.exit(error.exit_code)
    except MemoryError as error:
        tell(f"tinyfl: out of memory ({plain(error)}). Give a smaller --cohort, --samples, --tasks or --network.")
        sys.exit(TinyflError.exit_code)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS):
            raise
        where = plain(error.filename or "what this command writes to")
        tell(f"tinyfl: {where} cannot be written ({error.strerror}). See that it has room, and that you may write there.")
        sys.exit(RunError.exit_code)


def _verbs() -> Any:
    """The application, with all verbs in the order of the help."""
    from importlib import import_module

    from tinyfl.cli.common import app

    for module in (
        "learning",
        "online",
        "studies",
        "data",
        "published",
        "models",
        "firmware",
        "flashing",
        "fleet",
        "federation",
    ):
        import_module(f"tinyfl.cli.{module}")

    return app


def __getattr__(name: str) -> Any:
    if name == "app":
        return _verbs()
    raise AttributeError(f"module 'tinyfl.cli' has no attribute {name!r}")
