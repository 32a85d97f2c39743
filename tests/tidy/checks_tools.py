# SPDX-License-Identifier: LGPL-2.1-or-later
"""A tool's options are the same in its code, its --help and its man page.

The help texts come from running the built programs; load() has put them into
the tree as files "--help/PROGRAM" and "--help/PROGRAM/COMMAND".
"""
import os
import re

import csource
from registry import check
from tree import HELP

_OPTION = re.compile(r'(?<![\w-])(--[a-z][\w-]*|-[A-Za-z0-9])(?![\w-])')
# An entry of a table of options: {"name", 'letter', …}.
_ENTRY = re.compile(r'\{\s*"([a-z][\w-]*)",\s*(?:\'(\w)\'|[A-Z]+_OPT_\w+),')


def _help_options(text):
    """What is defined in a help text: options that begin an indented line."""
    found = set()
    for line in text.splitlines():
        match = re.match(r'\s+(-.*?)(?:\s{2,}|$)', line)
        if match:
            found |= set(_OPTION.findall(match.group(1)))
    return found


def _man_sections(text):
    """Heading → options named below it; of Markdown, reStructuredText or roff."""
    text = text.replace('\\-', '-')
    text = re.sub(r'\\f[BIRP]|[*`]', '', text)
    sections, current = {'': set()}, ''
    lines = text.splitlines()
    for number, line in enumerate(lines):
        below = lines[number + 1] if number + 1 < len(lines) else ''
        heading = re.match(r'(?:#+|\.S[HS])\s+"?(.*?)"?$', line)
        if heading or (line.strip() and re.match(r'(=+|-+|~+)$', below) and len(below) > 2):
            current = heading.group(1) if heading else line.strip()
            sections.setdefault(current, set())
        else:
            sections[current] |= set(_OPTION.findall(line))
    return sections


def _man_page(tree, program):
    pages = [p for p in tree.paths(under='docs/man/')
             if os.path.basename(p).startswith(program + '.')]
    return pages[0] if pages else None


def _help_texts(tree):
    """Program → {command, or '' for the program's own help: options}."""
    programs = {}
    for path, text in tree.items(under=HELP):
        program, _, command = path[len(HELP):].partition('/')
        programs.setdefault(program, {})[command] = _help_options(text)
    return programs


@check('options', faults=5, bad={
    HELP + 'blockgraph-a': 'usage: blockgraph-a\n  -h, --help  print this\n',
    HELP + 'blockgraph-a/info': '  -U, --force-share  open what\n      --output=human|json  x -z\n',
    HELP + 'blockgraph-a/map': '  -q  say nothing\n',
    'docs/man/blockgraph-a.1.md': '# OPTIONS\n**-h**, **--help**\n\n## info\n**-U**, '
                                  '**--force-share**, --nothing\n',
    HELP + 'blockgraph-b': '  -h, --help  x\n',
    'tools/a/info.c': 'static T options[] = {\n    {"hidden", \'y\', NULL, "x"},\n};\n'})
def options(tree):
    for program, commands in _help_texts(tree).items():
        page = _man_page(tree, program)
        if page is None:
            yield 'docs/man', 0, f'no page for {program}'
            continue
        sections = _man_sections(tree.texts[page])
        everywhere = set().union(*sections.values())
        for command, wanted in commands.items():
            word = re.compile(rf'(?<![\w-]){re.escape(command)}(?![\w-])')
            there = [s for heading, s in sections.items() if command and word.search(heading)]
            if command and not there:
                yield page, 0, f'no section for {program} {command}'
                continue
            # What every command takes may be told once, in a section of its own.
            common = set().union(*(s for heading, s in sections.items()
                                   if re.search('option', heading, re.I)), commands.get('', set()))
            missing = wanted - (set().union(common, *there) if command else everywhere)
            if missing:
                yield page, 0, f'{program} {command}: not told of: {", ".join(sorted(missing))}'
        extra = everywhere - set().union(*commands.values())
        if extra:
            yield page, 0, f'options that no --help has: {", ".join(sorted(extra))}'
    yield from _code_options(tree)


def _code_options(tree):
    """The options in the code's tables that no --help text shows."""
    helps = _help_texts(tree)
    shown = set().union(*(s for commands in helps.values() for s in commands.values()))
    for path, text in tree.items('.c', '.h', under='tools/') if helps else []:
        code = csource.strip_comments(text)
        for match in _ENTRY.finditer(code):
            names = {'--' + match.group(1)} | ({'-' + match.group(2)} if match.group(2) else set())
            if names - shown:
                yield path, code.count('\n', 0, match.start()) + 1, \
                    f'{", ".join(sorted(names - shown))}: in no --help'
