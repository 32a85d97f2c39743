# SPDX-License-Identifier: LGPL-2.1-or-later
"""Who includes whom, what is public, and what a driver consists of."""
import os
import re

import csource
from registry import check

PUBLIC = 'include/blockgraph/'
MAP = 'libblockgraph.map'
# The public headers that know nothing of block devices.
UTIL_HEADERS = {'blockgraph/' + name for name in (
    'annotations.h', 'aio.h', 'bql.h', 'coroutine.h', 'iov.h', 'trace.h')}
DRIVER_HEADER = 'blockgraph/block-driver.h'


def _reachable(tree, header):
    """The public headers that @header brings with it, itself included."""
    found, todo = set(), [header]
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo += [n for _, n in csource.includes(tree.texts.get('include/' + name, ''))]
    return found


def _allowed(tree):
    """For each room: a predicate on (path of the file, name it includes)."""
    driver_headers = _reachable(tree, DRIVER_HEADER)

    def public(name):
        return name.startswith('blockgraph/')

    def own_folder(path, name):
        return path.count('/') > 1 and os.path.dirname(path) == os.path.dirname(name)

    return [
        (PUBLIC, lambda path, name: name in UTIL_HEADERS if path[8:] in UTIL_HEADERS
         else public(name)),
        ('util/', lambda path, name: name.startswith('util/') or name in UTIL_HEADERS),
        ('block/', lambda path, name: name.startswith(('block/', 'util/')) or public(name)),
        ('drivers/', lambda path, name: name.startswith('util/') or name in driver_headers
         or own_folder(path, name)),
        ('tools/', lambda path, name: name.startswith(('tools/', 'block/', 'util/'))
         or public(name)),
    ]


@check('includes', faults=9, bad={
    'include/blockgraph/aio.h': '#include "blockgraph/block.h"\n',
    'include/blockgraph/block.h': '#include "block/graph.h"\n',
    'include/blockgraph/block-driver.h': '#include "blockgraph/block.h"\n',
    'util/a.c': '#include "block/a.h"\n#include "blockgraph/block.h"\n#include "util/a.h"\n',
    'block/a.c': '#include "drivers/qcow2/qcow2.h"\n# include "tools/a.h"\n',
    'drivers/a.c': '#include "blockgraph/block.h"\n#include "block/a.h"\n',
    'drivers/qcow2/a.c': '#include "drivers/qcow2/qcow2.h"\n#include "drivers/raw/raw.h"\n',
    'tools/a.c': '#include "drivers/qcow2/qcow2.h"\n#include "block/a.h"\n'})
def includes(tree):
    for room, allowed in _allowed(tree):
        for path, text in tree.items('.c', '.h', under=room):
            for line, name in csource.includes(text):
                if not allowed(path, name):
                    yield path, line, f'may not include "{name}"'


def _documented(lines, number):
    """Whether a comment begins the paragraph that line @number is in."""
    if '/*' in lines[number - 1]:
        return True
    for line in reversed(lines[:number - 1]):
        if not line.strip():
            return False
        if re.match(r'\s*(/\*(?! ----)|\*)', line):
            return True
    return False


@check('public-comments', faults=2, bad={
    PUBLIC + 'a.h': '/* About the file. */\n\nint a(void);\n\n/* Does b. */\nint b(void);\n\n'
                    '/* ---- Rest ---- */\nextern int c;\n'})
def public_comments(tree):
    for path, text in tree.items('.h', under=PUBLIC):
        lines = text.splitlines()
        for name, line, _ in csource.declarations(text):
            if not _documented(lines, line):
                yield path, line, f'{name} has no comment'


def declared(tree):
    return {d.name: (path, d.line) for path, text in tree.items('.h', under=PUBLIC)
            for d in csource.declarations(text)}


@check('symbols', faults=3, bad={
    PUBLIC + 'a.h': '/* . */\nint a(void);\nint b(void);\n',
    MAP: 'V {\nglobal:\n    d;\n    c;\nlocal:\n    *;\n};\n'})
def symbols(tree):
    if MAP not in tree.texts:
        return
    listed = re.findall(r'^    (\w+);$', tree.texts[MAP], re.M)
    names = declared(tree)
    for name in sorted(set(names) - set(listed)):
        yield *names[name], f'{name} is public, and {MAP} does not list it'
    extra = sorted(set(listed) - set(names))
    if extra:
        yield MAP, 0, f'no public header declares {", ".join(extra)}'


def map_text(tree):
    """What the map has to be; tidy.py --write-map writes it."""
    names = ''.join(f'    {name};\n' for name in sorted(declared(tree)))
    return ('# The symbols that the shared library exports: what the public headers declare.\n'
            f'LIBBLOCKGRAPH_0 {{\nglobal:\n{names}local:\n    *;\n}};\n')


def _drivers(tree):
    """The built-in drivers, as drivers/meson.build lists them: name → files."""
    text = tree.texts.get('drivers/meson.build', '')
    table = re.search(r'^driver_files = \{(.*?)^\}', text, re.M | re.S)
    entries = re.findall(r"'([\w-]+)'\s*:\s*(.*?)(?=^\s*'[\w-]+'\s*:|\Z)",
                         table.group(1) if table else '', re.M | re.S)
    return {name: re.findall(r"'([\w/.-]+\.c)'", files) for name, files in entries}


@check('driver-places', faults=2, bad={
    'drivers/meson.build': "driver_files = {\n  'raw': files('raw.c'),\n}\n",
    'drivers/raw.c': 'BlockDriver block_driver_raw = {\n};\n',
    'block/probe.c': 'extern BlockDriver block_driver_raw;\n',
    'tools/info.c': 'if (drv == &block_driver_raw) {\n}\n'})
def driver_places(tree):
    """The core and the tools know no driver: the build's table is the only list."""
    for name in _drivers(tree):
        symbol = re.compile(r'\bblock_driver_' + name.replace('-', '_') + r'\b(?!\()')
        for path, text in tree.items('.c', '.h'):
            if path.startswith(('block/', 'util/', 'tools/', 'include/')):
                for match in symbol.finditer(csource.strip(text)):
                    yield path, text.count('\n', 0, match.start()) + 1, \
                        f'{match.group()}: only the generated table may name a driver'


@check('driver-page', faults=1, bad={
    'drivers/meson.build': "driver_files = {\n  'raw': ['raw.c'],\n  'bochs': ['bochs.c'],\n}\n",
    'docs/formats/raw.md': '# raw\n'})
def driver_page(tree):
    pages = {os.path.basename(p)[:-3]: text for p, text in tree.items('.md', under='docs/')}
    for name in _drivers(tree):
        titles = ' '.join(text.split('\n', 1)[0] for text in pages.values())
        if name not in pages and not re.search(rf'(?<![\w-]){re.escape(name)}(?![\w-])', titles):
            yield 'drivers/meson.build', 0, f'no page in docs/ has {name} in its title'


_CO_NAME = re.compile(r'\bcoroutine_(?:mixed_)?fn\b[\w\s*]*?\b(\w+)\s*\(')
_TWICE = re.compile(r'\b(?:MIN|MAX|CLAMP|ABS)\(')


def _arguments(text, start):
    """The text from @start to the parenthesis that closes the one before it."""
    depth, end = 1, start
    while depth and end < len(text):
        depth += (text[end] == '(') - (text[end] == ')')
        end += 1
    return text[start:end]


@check('evaluated-twice', faults=2, bad={
    'util/a.h': 'int coroutine_fn a_read(int n);\nint b(int n);\n',
    'util/a.c': 'int f(void)\n{\n    g(MIN(b(0), 1), MAX(1, a_read(2)));\n'
                '    return MIN(a_read(0),\n               0);\n}\n'})
def evaluated_twice(tree):
    """MIN and its like evaluate one argument twice: an I/O would be done twice."""
    texts = {path: csource.strip(text) for path, text in tree.items('.c', '.h')}
    names = {name for text in texts.values() for name in _CO_NAME.findall(text)}
    for path, text in texts.items():
        for match in _TWICE.finditer(text):
            calls = re.findall(r'\b(\w+)\s*\(', _arguments(text, match.end()))
            for name in sorted(names.intersection(calls)):
                yield path, text.count('\n', 0, match.start()) + 1, \
                    f'{match.group()}…) calls {name} twice'
