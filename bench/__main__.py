"""`python -m bench ops ...` and the other arenas."""

import sys

from bench import cifar, claims, families, hed, kills, models, ops, structural

COMMANDS = {
    "ops": ops.main,
    "models": models.main,
    "hed": hed.main,
    "cifar": cifar.main,
    "structural": structural.main,
    "families": families.main,
    "kills": kills.main,
    "claims": claims.main,
}

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in COMMANDS:
        print(f"usage: ./run bench {{{','.join(COMMANDS)}}} ...; ./run bench NAME --help", file=sys.stderr)
        sys.exit(2)
    sys.exit(COMMANDS[sys.argv[1]](sys.argv[2:]))
