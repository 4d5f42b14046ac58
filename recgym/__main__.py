"""``python -m recgym``: the command line."""

from recgym.cli import main

if __name__ == "__main__":
    main()
