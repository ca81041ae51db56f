"""Hostile input for as long as you like: run in tests/, with moorline installed.

    python -m hostile.fuzz SECONDS [PARSER ...]

Prints what it found: the seed, the parser, the input and the error; ends with 1 if there was any.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from random import Random

from hostile.mutations import mutated
from hostile.parsers import NAMES, Parser, parsers, samples


def attempt(parser: Parser, seed: int) -> tuple[bytes, bool]:
    """The input that belongs to `seed`, and whether it was accepted."""
    rng = Random(seed)
    others = [text for name, texts in samples().items() if name != parser.name for text in texts]
    text = mutated(rng, rng.choice(parser.good), others)
    try:
        return text, parser.try_(text)
    except BaseException as error:
        error.add_note(f"parser {parser.name}, seed {seed}, input {text[:2000]!r}")
        raise


def main(arguments: list[str]) -> int:
    if not arguments or set(arguments[1:]) - set(NAMES):
        sys.stderr.write(f"{__doc__}\nParsers: {', '.join(NAMES)}\n")
        return 2
    chosen = [p for p in parsers() if p.name in (arguments[1:] or NAMES)]
    end, seed, found = time.monotonic() + float(arguments[0]), time.time_ns(), 0
    tried: Counter[str] = Counter()
    while time.monotonic() < end:
        for parser in chosen:
            seed += 1
            try:
                _, accepted = attempt(parser, seed)
                tried[f"{parser.name} {'accepted' if accepted else 'refused'}"] += 1
            except Exception as error:
                found += 1
                notes = getattr(error, "__notes__", "")
                sys.stdout.write(f"{type(error).__name__}: {error}\n  {notes}\n")
    for name, number in sorted(tried.items()):
        sys.stdout.write(f"{number:9,} {name}\n")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
