"""`python -m safer_offline`: the program, also where its script is not on the path."""

from safer_offline.cli.main import main

if __name__ == "__main__":
    main()
