#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Make docs/qcow2.md from qcow2.txt: each feature of the format, and the tests that show it.

  features.py           fail if the page is not what would be made, or if qcow2.txt names
                        a test that does not exist
  features.py --write   write the page
"""
import glob
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.join(HERE, '..', '..')
SOURCE = os.path.join(HERE, 'qcow2.txt')
PAGE = os.path.join(TOP, 'docs', 'qcow2.md')
COLUMNS = ('read', 'write', 'check', 'repair')
INTRODUCTION = '''# qcow2: which test shows what

Every feature of the published qcow2 specification, and the tests that show that it is
read, written, checked (`check`) and repaired (`check -r`), or the reason why not. A test
is named by its file in `tests/` and its name there. [formats/qcow2.md](formats/qcow2.md)
tells how the driver works.

This page is made by `tests/features/features.py --write` out of
`tests/features/qcow2.txt`; a test fails when it names a test that does not exist.
'''


class Wrong(Exception):
    pass


def read(path):
    with open(path, encoding='utf-8') as file:
        return file.read()


def existing_tests():
    """The set of "file:name" of all tests of C and Python."""
    found = set()
    for path in glob.glob(os.path.join(TOP, 'tests', '*', 'test-*.c')):
        stem = os.path.basename(path)[len('test-'):-len('.c')]
        names = re.findall(r'cmocka_unit_test\w*\(\s*(\w+)', read(path))
        found.update('%s:%s' % (stem, name) for name in names)
    for path in glob.glob(os.path.join(TOP, 'tests', '*', 'test-*.py')):
        stem = os.path.basename(path)[len('test-'):-len('.py')]
        text = read(path)
        names = re.findall(r'^    def (test_\w+)', text, re.MULTILINE)
        # One test for each entry of a table.
        names += ['test_' + name for name in re.findall(r"^    '(\w+)': Shape\(", text,
                                                        re.MULTILINE)]
        found.update('%s:%s' % (stem, name) for name in names)
    return found


def parse(text):
    """[(section, [(feature, {column: cell})])]; see the head of qcow2.txt."""
    sections = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith('#'):
            continue
        if line.startswith('== '):
            sections.append((line[3:].strip(), []))
        elif not line.startswith(' '):
            if not sections:
                raise Wrong('line %d: a feature before the first section' % number)
            sections[-1][1].append((line.strip(), {}))
        else:
            column, _, cell = line.strip().partition(':')
            if not sections or not sections[-1][1] or column not in COLUMNS or not cell.strip():
                raise Wrong('line %d: expected one of %s' % (number, ', '.join(COLUMNS)))
            cells = sections[-1][1][-1][1]
            if column in cells:
                raise Wrong('line %d: "%s" twice' % (number, column))
            cells[column] = cell.strip()
    return sections


def render_cell(feature, column, cell, tests):
    if cell is None:
        raise Wrong('%s: neither tests nor a reason for "%s"' % (feature, column))
    if cell.startswith('- '):
        return cell[2:]
    for name in cell.split():
        if name not in tests:
            raise Wrong('%s: "%s" names the test %s, which does not exist'
                        % (feature, column, name))
    return '<br>'.join('`%s`' % name for name in cell.split())


def render(text, tests):
    out = [INTRODUCTION]
    for section, features in parse(text):
        out.append('## %s\n' % section)
        out.append('| feature | read | write | check | repair |\n|---|---|---|---|---|')
        for feature, cells in features:
            row = [render_cell(feature, column, cells.get(column), tests) for column in COLUMNS]
            out.append('| %s | %s |' % (feature, ' | '.join(row)))
        out.append('')
    return '\n'.join(out)


def self_test():
    """What the checks are for is found."""
    good = '== S\nf\n  read: a:x\n  write: - no\n  check: a:x\n  repair: a:x a:y\n'
    render(good, {'a:x', 'a:y'})
    for text, tests in ((good, {'a:x'}), (good.replace('  check: a:x\n', ''), {'a:x', 'a:y'}),
                        (good.replace('check', 'chek'), {'a:x', 'a:y'}),
                        (good + '  read: a:x\n', {'a:x', 'a:y'})):
        try:
            render(text, tests)
        except Wrong:
            continue
        raise Wrong('a wrong source was accepted: %r' % text)


def main():
    try:
        self_test()
        page = render(read(SOURCE), existing_tests())
    except Wrong as error:
        sys.exit('features.py: %s' % error)
    if sys.argv[1:] == ['--write']:
        with open(PAGE, 'w', encoding='utf-8') as file:
            file.write(page)
    elif not os.path.exists(PAGE) or read(PAGE) != page:
        sys.exit('features.py: docs/qcow2.md is out of date: run it with --write')


if __name__ == '__main__':
    main()
