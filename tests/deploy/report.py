"""Runs the tests of this folder, and ends with those that were skipped, each with its reason, and with their number."""

import pathlib
import sys
import unittest


def main():
    loader = unittest.TestLoader()
    names = sys.argv[1:]
    here = str(pathlib.Path(__file__).parent)
    suite = loader.loadTestsFromNames(names) if names else loader.discover(here)
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=1).run(suite)
    for test, reason in result.skipped:
        print(f"SKIP: {reason} [{test.id()}]")
    failed = len({str(getattr(test, "test_case", test)) for test, _ in result.failures + result.errors})
    passed = result.testsRun - failed - len(result.skipped)
    print(f"deploy: {passed} passed, {failed} failed, {len(result.skipped)} skipped")
    return 0 if result.wasSuccessful() else 1


if __name__ == "__main__":
    sys.exit(main())
