"""The command of the study."""

import sys

from experiments.core.study import main
from experiments.kim_rush_2016.ablations.study import STUDY

if __name__ == "__main__":
    sys.exit(main(STUDY))
