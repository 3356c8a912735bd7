"""The program with which a job begins: `python -m raylens.workloads.job_entrypoint COMMAND...`.

It checks that the code that runs is the code of the job, takes the job's secrets from the node, finds the uploaded
files, and then runs `raylens COMMAND...`.
"""

import os
import sys
from pathlib import Path

from raylens.cluster import provide
from raylens.cluster.jobs import FILES_VARIABLE, WHEEL_VARIABLE
from raylens.errors import ClusterError, RaylensError
from raylens.workloads.cli.app import main as command
from raylens.workloads.cli.app import report
from raylens.workloads.submit.command import FILES

__all__ = ["main"]


def main() -> None:
    """Run the command of this job, and exit with its status."""
    try:
        _check_code()
        provide()
        sys.argv = ["raylens", *_with_files(sys.argv[1:])]
    except RaylensError as error:
        report(error)
        sys.exit(1)
    command()


def _check_code() -> None:
    """Check that no other installation of raylens is imported, with whose modules the job's would be mixed."""
    wanted = os.environ.get(WHEEL_VARIABLE)
    here = Path(__file__).resolve().parents[2]
    if wanted and here.name != wanted:
        raise ClusterError(
            f"the job has the wheel {wanted}, but {here} is first on its path: is PYTHONPATH set in --env?"
        )


def _with_files(arguments: list[str]) -> list[str]:
    """Return the arguments with the paths of the job's uploaded files."""
    name = os.environ.get(FILES_VARIABLE)
    if not name:
        return arguments
    package = next((path for path in sys.path if Path(path).name == name), None)
    if package is None:
        raise ClusterError(f"the files of the job, {name}, are not on its path: is PYTHONPATH set in --env?")
    return [argument.replace(FILES, f"{package}/") if FILES in argument else argument for argument in arguments]


if __name__ == "__main__":
    main()
