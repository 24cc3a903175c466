"""The command of the study."""

import sys

from experiments.abnar_2020.study import STUDY
from experiments.core.study import main

if __name__ == "__main__":
    sys.exit(main(STUDY))
