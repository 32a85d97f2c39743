# SPDX-License-Identifier: LGPL-2.1-or-later
"""The list of checks. Each brings a bad sample that it must find fault with."""
from collections import namedtuple

Check = namedtuple('Check', 'name run bad')

checks = []


def check(name, bad, faults=1):
    """Register a check: a function of a Tree that yields (path, line, text).

    @bad is a small tree as a dict, in which it must find @faults faults; the
    self-test runs it, so that no check can be one that never fails.
    """
    def register(function):
        checks.append(Check(name, function, (bad, faults)))
        return function
    return register
