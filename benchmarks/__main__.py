"""``python -m benchmarks`` is ``python -m benchmarks.compare``."""

from benchmarks.compare import main

if __name__ == "__main__":
    raise SystemExit(main())
