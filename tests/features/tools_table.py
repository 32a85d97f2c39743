# SPDX-License-Identifier: LGPL-2.1-or-later
"""Reads tools.txt; its head says what is in it."""
import os
import re
import shlex

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.join(HERE, 'tools.txt')
STATES = ('accepted', 'refused', 'missing')
KEYS = STATES + ('run', 'first', 'then', 'locked', 'trace', 'ascending', 'alike')
ALIKE = ('exit code', 'nothing')
DIFFERENCE = re.compile(r'\[([^\[\]]*?)(?: // ([^\[\]]*?))?\]')


class Wrong(Exception):
    pass


class Option:
    """One option: its spellings, and what tools.txt says of it."""

    def __init__(self, section, spellings):
        self.section = section
        self.spellings = spellings
        self.says = {}

    @property
    def name(self):
        return '%s %s' % (self.section, self.spellings[0])

    @property
    def state(self):
        """Which of STATES, or "run"."""
        return next((key for key in STATES if key in self.says), 'run')

    def words(self, spelling=None):
        """The command line with the option; without one when spelling is None."""
        def put(match):
            if spelling is None:
                return match.group(2) or ''
            # Spelled so where it is spelled otherwise in tools.txt.
            return re.sub(r'^(?:%s)(?= |$|=)' % re.escape(self.spellings[0]),
                          lambda _: spelling, match.group(1))
        # JSON has brackets of its own; those of the difference are apart from its quotes.
        return shlex.split(DIFFERENCE.sub(put, self.says['run'], count=1))


def check(option):
    """What of an option cannot be."""
    says = option.says
    if sum(state in says for state in STATES) > 1:
        raise Wrong('%s: more than one of %s' % (option.name, ', '.join(STATES)))
    if ('run' in says) == ('missing' in says):
        raise Wrong('%s: neither a run nor a reason why it is missing, or both' % option.name)
    if 'run' in says and option.words(option.spellings[0]) == option.words():
        raise Wrong('%s: the run has nothing in [ ]' % option.name)
    if says.get('alike', ALIKE[0]) not in ALIKE:
        raise Wrong('%s: alike is one of: %s' % (option.name, ', '.join(ALIKE)))


def parse(text):
    """[(section, [Option])]"""
    sections = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith('#'):
            continue
        if line.startswith('== '):
            sections.append((line[3:].strip(), []))
        elif not sections:
            raise Wrong('line %d: an option before the first section' % number)
        elif not line.startswith(' '):
            sections[-1][1].append(Option(sections[-1][0], line.split()))
        else:
            key, _, value = line.strip().partition(': ')
            if not sections[-1][1] or key not in KEYS or not value:
                raise Wrong('line %d: expected one of %s' % (number, ', '.join(KEYS)))
            if key in sections[-1][1][-1].says:
                raise Wrong('line %d: "%s" twice' % (number, key))
            sections[-1][1][-1].says[key] = value
    for _, options in sections:
        for option in options:
            check(option)
    return sections


def load():
    with open(SOURCE, encoding='utf-8') as file:
        return parse(file.read())
