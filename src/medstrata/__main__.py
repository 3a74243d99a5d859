"""``python -m medstrata``."""

from medstrata.cli import main

if __name__ == "__main__":
    main()
