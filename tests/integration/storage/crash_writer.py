"""A process to kill: writes blocks of 500 rows one after the other and says which ones were acknowledged.

Arguments: data folder, first block number, blocks to write.
"""

import os
import sys
from pathlib import Path

from pipeline.storage.embedded import EmbeddedEngine
from pipeline.storage.migrations import migrate
from schemas.control import Gap

ROWS = 500


def block(number: int) -> list[Gap]:
    return [Gap(f"block-{number}", row, None, "x" * 50) for row in range(ROWS)]


def main() -> None:
    engine = EmbeddedEngine(Path(sys.argv[1]))
    migrate(engine)
    os.write(1, b"ready\n")
    first, count = int(sys.argv[2]), int(sys.argv[3])
    for number in range(first, first + count):
        engine.insert("gaps", block(number))
        os.write(1, b"ack %d\n" % number)
    engine.close()


if __name__ == "__main__":
    main()
