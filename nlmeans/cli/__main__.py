"""``python -m nlmeans.cli``."""

from nlmeans.cli import main

if __name__ == "__main__":
    main()
