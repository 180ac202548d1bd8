"""``python -m funoffshore`` is ``fo``."""

from funoffshore.cli import main

main()
