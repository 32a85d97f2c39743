#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Hold the project's style: see the checks_*.py files beside this one.

tidy.py [--top FOLDER] [--tools FOLDER] [CHECK]...   run the checks, or those named
tidy.py --list                                       name them
tidy.py --write-map                                  bring libblockgraph.map up to date
"""
import argparse
import os
import sys

import checks_code
import checks_size  # noqa: F401 (registers its checks)
import checks_text  # noqa: F401
import checks_tools  # noqa: F401
from registry import checks
from tree import load


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--top', default=os.path.join(here, '..', '..'))
    parser.add_argument('--tools', help='the folder of the built programs')
    parser.add_argument('--list', action='store_true')
    parser.add_argument('--write-map', action='store_true')
    parser.add_argument('check', nargs='*')
    args = parser.parse_args()

    unknown = set(args.check) - {c.name for c in checks}
    if unknown:
        parser.error(f'no such check: {", ".join(sorted(unknown))}')
    if args.list:
        print('\n'.join(c.name for c in checks))
        return 0
    tree = load(args.top, args.tools)
    if args.write_map:
        with open(os.path.join(args.top, checks_code.MAP), 'w', encoding='utf-8') as f:
            f.write(checks_code.map_text(tree))
        return 0

    faults = 0
    for check in checks:
        if args.check and check.name not in args.check:
            continue
        for path, line, text in check.run(tree):
            print(f'{path}:{line}: {text} [{check.name}]')
            faults += 1
    print(f'tidy: {faults} faults in {len(tree.texts)} files')
    return 1 if faults else 0


if __name__ == '__main__':
    sys.exit(main())
