# SPDX-License-Identifier: LGPL-2.1-or-later
"""What may stand in a file, and what must."""
import os
import re

from registry import check

# Spelled in two parts: this file is checked as well.
MARKS = re.compile(r'\b(' + '|'.join(['TO' 'DO', 'FIX' 'ME', 'XX' 'X']) + r')\b')
SPDX = 'SPDX-License-Identifier: LGPL-2.1-or-later'

# A way to tell a checker to look away, or a file that lists such ways.
EXEMPTIONS = re.compile('|'.join([
    'no_' 'sanitize', 'NO_' 'THREAD_SAFETY_ANALYSIS', 'no_' 'thread_safety_analysis',
    'disable_' 'sanitizer_instrumentation', 'fno-' 'sanitize(?!-recover)',
    'detect_' 'leaks=0', r'supp' r'ressions=', 'GCC diag' 'nostic ignored',
    'clang diag' 'nostic ignored', 'ANNOTATE_' 'IGNORE', 'Annotate' 'Ignore']))
EXEMPTION_FILES = re.compile(r'\.supp$|suppress')
# The stack switch: the only code that is not what it seems to a checker.
STACK_SWITCH = re.compile(r'util/stack-switch-[\w-]+\.[chS]$')
MAX_EXEMPTIONS = 4

HOSTS = re.compile('|'.join([
    r'deb\.deb' r'ian\.org', r'security\.deb' r'ian\.org', r'snapshot\.deb' r'ian\.org',
    r'py' r'pi\.org', r'registry\.np' r'mjs', r'crates\.' r'io', r'proxy\.go' r'lang',
    r'(?<![\w./$}])/wo' r'rk/', r'(?<![\w./$}])/op' r't/', r'(?<![\w./$}])/ho' r'me/\w',
    r'(?<![\w./$}])/ro' r'ot/']))
TEMPORARY = re.compile(r'["\'=\s]/tm' r'p/')


def _lines(tree, paths, pattern):
    for path in paths:
        for number, line in enumerate(tree.texts[path].splitlines(), 1):
            for match in pattern.finditer(line):
                yield path, number, match.group()


@check('spdx', faults=3, bad={
    'util/a.c': '#include <glib.h>\n' + SPDX + '\n',
    'tests/a.sh': '#!/bin/sh\n:\n# ' + SPDX + '\n',
    'tests/a.py': ''})
def spdx(tree):
    for path in tree.sources():
        lines = tree.texts[path].splitlines()
        first = lines[1:2] if lines and lines[0].startswith('#!') else lines[:1]
        if SPDX not in ''.join(first):
            yield path, 1, f'does not begin with "{SPDX}"'


@check('marks', faults=2, bad={
    'util/a.c': 'int a; /* TO' 'DO: b */\n', 'docs/a.md': 'FIX' 'ME\n',
    'util/b.c': 'char *t = "name-XXXXXX";\n'})
def marks(tree):
    for path, line, word in _lines(tree, tree.paths(), MARKS):
        if path != 'COPYING.LIB':
            yield path, line, f'{word}: do it, or open an issue'


@check('exemptions', faults=3, bad={
    'block/a.c': '__attribute__((no_' 'sanitize("thread"))) int a(void);\n',
    'tests/tsan.supp': 'race:foo\n',
    'util/coroutine.c': 'void f(void) NO_' 'THREAD_SAFETY_ANALYSIS;\n',
    'util/stack-switch-ucontext.c': 'no_' 'sanitize\n'})
def exemptions(tree):
    found = [(p, n, w) for p, n, w in _lines(tree, tree.paths(), EXEMPTIONS)
             if not p.startswith('tests/tidy/') and not p.endswith('.md')]
    found += [(p, 0, 'a suppression file') for p in tree.paths() if EXEMPTION_FILES.search(p)]
    for path, line, word in found:
        if not STACK_SWITCH.match(path):
            yield path, line, f'{word}: allowed in the stack switch only'
    if len(found) > MAX_EXEMPTIONS:
        yield 'util', 0, f'{len(found)} exemptions, and {MAX_EXEMPTIONS} is the most'


@check('machine-paths', faults=3, bad={
    'docs/a.md': 'see /wo' 'rk/main\n',
    'util/a.c': 'char *a = "/tm' 'p/x";\n',
    '.ci/run': '#!/bin/sh\necho https://deb.deb' 'ian.org/deb' 'ian\n',
    'docs/b.md': 'net' '/wo' 'rk/x\n'})
def machine_paths(tree):
    for path, line, word in _lines(tree, tree.paths(), HOSTS):
        yield path, line, f'{word}: a name that means something on one machine only'
    for path, line, word in _lines(tree, tree.sources(), TEMPORARY):
        yield path, line, 'a fixed temporary folder: use g_get_tmp_dir(), mktemp or tempfile'


@check('readme-example', bad={
    'README.md': 'x\n```c\nint main(void);\n```\n',
    'docs/examples/read-image.c': 'int main(void)\n{\n}\n'})
def readme_example(tree):
    example = tree.texts.get('docs/examples/read-image.c')
    readme = tree.texts.get('README.md')
    if example is None or readme is None:
        return
    blocks = re.findall(r'^```c\n(.*?)^```$', readme, re.M | re.S)
    if blocks != [example]:
        yield 'README.md', 0, 'its C program is not docs/examples/read-image.c'


@check('example-length', bad={'docs/examples/read-image.c': 'int a;\n' * 31})
def example_length(tree):
    text = tree.texts.get('docs/examples/read-image.c', '')
    code = [line for line in re.sub(r'/\*.*?\*/', '', text, flags=re.S).splitlines()
            if line.strip()]
    if len(code) > 30:
        yield 'docs/examples/read-image.c', 0, f'{len(code)} lines of code, README promises 30'


@check('links', faults=2, bad={
    'README.md': '', 'docs/a.md': '[b](b.md) [c](../README.md#x) [d](https://example.org)\n',
    'docs/c.md': 'Read `docs/nothing.md` first.\n'})
def links(tree):
    folders = {os.path.dirname(p) for p in tree.texts}
    folders |= {os.path.dirname(f) for f in folders}
    known = set(tree.texts) | folders
    for path, text in tree.items('.md'):
        for number, line in enumerate(text.splitlines(), 1):
            for target in re.findall(r'\]\(([^)#\s]+)', line):
                full = os.path.normpath(os.path.join(os.path.dirname(path), target))
                if '://' not in target and full not in known:
                    yield path, number, f'{target}: no such file'
            for target in re.findall(r'`((?:docs|tests|tools|util|block|drivers|include)/'
                                     r'[\w./-]+\.(?:md|c|h|py|sh))`', line):
                if target not in known and 'NAME' not in target:
                    yield path, number, f'{target}: no such file'
