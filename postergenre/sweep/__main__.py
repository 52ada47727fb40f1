"""Report to workflow/Snakefile, as JSON, what its jobs depend on, or that a scattered prediction is complete."""

import argparse
import json
import sys

from postergenre.errors import ConfigError
from postergenre.sweep.jobs import describe_jobs, gather_predictions

parser = argparse.ArgumentParser(prog="python -m postergenre.sweep", description=__doc__)
commands = parser.add_subparsers(metavar="COMMAND", required=True, dest="command")
jobs = commands.add_parser("jobs", help="code, data and parts of a sweep that the jobs depend on")
jobs.add_argument("--sweep", metavar="FILE", help="sweep file")
jobs.add_argument("--data", metavar="FILE", help="params file of the data")
jobs.add_argument("--images", metavar="FOLDER", help="folder or list to predict")
gather = commands.add_parser("gather", help="check that all parts of a prediction are there")
gather.add_argument("folder", metavar="FOLDER.parquet", help="output of the parts")
gather.add_argument("n", metavar="N", type=int, help="number of parts")
given = parser.parse_args()
try:
    found = (
        describe_jobs(given.sweep, given.data, given.images)
        if given.command == "jobs"
        else gather_predictions(given.folder, given.n)
    )
except ConfigError as error:
    sys.exit(str(error))
print(json.dumps(found, indent=1))
