"""The command line. Bad input gives one line on standard error and status 2, Ctrl-C one and status 130."""

# Little is imported before `main` runs: Ctrl-C is answered from then on.
import os
import signal
import sys
from collections.abc import Sequence
from types import SimpleNamespace

from tandem_edu.errors import BadInput


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status. Without `arguments`, run the process's own and exit."""
    options = SimpleNamespace()
    own = arguments is None
    if own and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, lambda *_: _stop(options))
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # pyright: ignore # a console may lack characters
    try:
        _run(arguments, options)
        return 0
    except BadInput as error:
        status, message = 2, " ".join(str(error).split())
    except OSError as error:
        if error.filename is not None:  # not standard output
            raise
        fix = "check the disk, or what reads the output"
        status, message = 2, f"expected to write to standard output, got {error.strerror}: {fix}"
    except KeyboardInterrupt:
        status, message = 130, _stopped(options)
    print(f"tandem-edu: {message}", file=sys.stderr, flush=True)
    if own:
        os._exit(status)  # after all is flushed: at its end Python would write to a broken output again
    return status


def _run(arguments: Sequence[str] | None, options: SimpleNamespace) -> None:
    try:
        from tandem_edu.cli.parser import parser

        parser().parse_args(arguments, options)
        options.run(options)
    finally:
        print(end="", flush=True)  # a broken output is noticed here, not at the end of the process


def _stop(options: SimpleNamespace) -> None:
    """End the process at Ctrl-C.

    Not by an exception: jaxlib loses one that is raised in its callbacks, crashes if one is raised during
    its import, and crashes at exit if it was compiling. Checkpoints are whole; nothing is left to clean up.
    """
    try:
        sys.stdout.flush()
    finally:
        below_a_bar = "\n" if os.isatty(2) else ""
        os.write(2, f"{below_a_bar}tandem-edu: {_stopped(options)}\n".encode())
        os._exit(130)


def _stopped(options: SimpleNamespace) -> str:
    resumes = hasattr(options, "resumes")
    return "stopped; the same command resumes from the last checkpoint" if resumes else "stopped"
