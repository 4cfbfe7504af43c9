import sys

from tandem_edu.cli import main

sys.exit(main())
