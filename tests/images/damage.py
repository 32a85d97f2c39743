#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Images with one thing damaged each: damage.py OUTDIR writes them and damage.json.

Every case takes one of tests/fixtures and changes one field (or, where the
damage is that two disagree, both). It says what must come of it:

  refuse   opening fails, and the message matches `hint` (any case)
  info     `info` works, but what needs the content is refused; the message matches `hint`
  eio      opens; reading the whole disk fails with an I/O error
  check    opens and reads; `check` finds corruption
  ok       opens, reads and checks clean: harmless
  bounded  opening or reading may fail or not, but never crashes, hangs or takes much memory

`qemu` tells what QEMU 10.0 does where that is something else.
"""
import argparse
import json
import os
import shutil
from collections import namedtuple

import damage_bochs
import damage_qcow2
import qcow2

FIXTURES = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'fixtures')
# What the fixtures refer to: backing files and data files.
COMPANIONS = ('backing-base.qcow2', 'data-file.data')

Case = namedtuple('Case', 'name base format patches truncate expect hint qemu')


def load(name):
    with open(os.path.join(FIXTURES, name), 'rb') as file:
        return file.read()


def cases():
    """All cases; names are unique."""
    seen = set()
    for module, image_format in ((damage_qcow2, 'qcow2'), (damage_bochs, 'bochs')):
        for row in module.rows(load):
            case = Case(format=image_format, **row)
            assert case.name not in seen, case.name
            seen.add(case.name)
            yield case


def apply(case):
    """The bytes of a case's image."""
    data = qcow2.patched(load(case.base), case.patches)
    return data if case.truncate is None else data[:case.truncate]


def describe(case):
    parts = []
    for offset, fmt, value in case.patches:
        if fmt is None:
            text = value.hex()
        else:
            text = '%r' % value if isinstance(value, bytes) else '%#x' % value
        parts.append('%#x: %s' % (offset, text))
    if case.truncate is not None:
        parts.append('cut to %d bytes' % case.truncate)
    return '%s with %s' % (case.base, ', '.join(parts))


def file_name(case):
    return case.name + os.path.splitext(case.base)[1]


def copy_companions(folder):
    for name in COMPANIONS:
        shutil.copy(os.path.join(FIXTURES, name), folder)


def add_to(corpus):
    """Put all cases into the image corpus, in damaged/."""
    os.makedirs(corpus.path('damaged'), exist_ok=True)
    copy_companions(corpus.path('damaged'))
    # A data file's name is relative to where the tool runs.
    shutil.copy(os.path.join(FIXTURES, 'data-file.data'), corpus.folder)
    for case in cases():
        file = 'damaged/' + file_name(case)
        corpus.save(file, apply(case))
        corpus.note(file, None, describe(case), ('quick', 'damaged', 'field'), format=case.format,
                    expect=case.expect, hint=case.hint, qemu=case.qemu)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('output', metavar='OUTDIR')
    args = parser.parse_args()
    os.makedirs(args.output, exist_ok=True)
    copy_companions(args.output)
    entries = []
    for case in cases():
        with open(os.path.join(args.output, file_name(case)), 'wb') as file:
            file.write(apply(case))
        entries.append({'name': case.name, 'file': file_name(case), 'format': case.format,
                        'how': describe(case), 'expect': case.expect, 'hint': case.hint,
                        'qemu': case.qemu})
    with open(os.path.join(args.output, 'damage.json'), 'w', encoding='utf-8') as file:
        json.dump(entries, file, indent=1)
    print('%d images' % len(entries))


if __name__ == '__main__':
    main()
