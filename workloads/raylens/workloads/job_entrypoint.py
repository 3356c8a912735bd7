"""Where a job begins on a cluster: `python -m raylens.workloads.job_entrypoint COMMAND...` is `raylens COMMAND...`.

Before it, the job's secrets are taken from the node, the files that came with it are found, and it is made sure that
the code that runs is the code that came.
"""

import os
import sys
from pathlib import Path

from raylens.cluster.jobs.submission import FILES_VARIABLE, WHEEL_VARIABLE
from raylens.cluster.secrets import provide
from raylens.errors import ClusterError, RaylensError
from raylens.workloads.cli.app import main as command
from raylens.workloads.cli.app import report
from raylens.workloads.submit.command import FILES

__all__ = ["main"]


def main() -> None:
    """Run the command of this job; never returns."""
    try:
        _check_code()
        provide()
        sys.argv = ["raylens", *_with_files(sys.argv[1:])]
    except RaylensError as error:
        report(error)
        sys.exit(1)
    command()


def _check_code() -> None:
    """Two installations of raylens share one namespace: a part of each would be a version that nobody tested."""
    wanted = os.environ.get(WHEEL_VARIABLE)
    here = Path(__file__).resolve().parents[2]
    if wanted and here.name != wanted:
        raise ClusterError(f"the job came with {wanted}, but {here} is first on its path: is PYTHONPATH set in --env?")


def _with_files(arguments: list[str]) -> list[str]:
    """The arguments with the places of the files that came with the job."""
    name = os.environ.get(FILES_VARIABLE)
    if not name:
        return arguments
    found = next((path for path in sys.path if Path(path).name == name), None)
    if found is None:
        raise ClusterError(f"the files of the job, {name}, are not on its path: is PYTHONPATH set in --env?")
    return [argument.replace(FILES, f"{found}/") if FILES in argument else argument for argument in arguments]


if __name__ == "__main__":
    main()
