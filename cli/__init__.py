"""The command line: one module a command, no logic.

main        the program, its errors and exit codes
collect, train, foresee, evaluate, report, publish, check, behaviors, data/   the commands
options, environments   what several of them share
console     consoles that lack letters
arithmetic  the same numbers on every processor
"""
