"""``make demo``: the main job end to end, on a real Kafka and a real registry, with a crash in the middle."""

from __future__ import annotations

import argparse
import sys

from ops.demo.demo import Demo, stop_kept_worker
from schemas.errors import BackboneError


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--keep", action="store_true", help="leave the stack and a worker up (make demo KEEP=1)")
    parser.add_argument("--stop", action="store_true", help="only stop the worker that --keep has left (make down)")
    arguments = parser.parse_args()
    if arguments.stop:
        stop_kept_worker()
        return 0
    demo = Demo(keep=arguments.keep)
    try:
        return demo.run()
    except BackboneError as error:
        print(f"\nThe demo cannot go on: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("\nInterrupted; everything the demo started is stopped.", file=sys.stderr)
        return 130
    finally:
        demo.end()


if __name__ == "__main__":
    sys.exit(main())
