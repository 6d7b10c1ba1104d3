"""`python -m warpctl` is the same as `warpctl`."""

from warpctl.cli.main import main

if __name__ == "__main__":
    main()
