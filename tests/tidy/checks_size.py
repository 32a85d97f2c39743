# SPDX-License-Identifier: LGPL-2.1-or-later
"""How long files, functions and lines may be."""
import ast
import re
import statistics

import csource
from registry import check

MAX_FILE = 1000
MAX_MEDIAN = 300
MAX_FUNCTION = 70
MAX_COLUMNS = 100


def _long_c():
    return 'int f(int a)\n{\n' + '    a++;\n' * MAX_FUNCTION + '    return a;\n}\n'


def _count(text):
    return len(text.splitlines())


@check('file-length', bad={'util/a.c': 'int a;\n' * (MAX_FILE + 1)})
def file_length(tree):
    for path in tree.sources():
        lines = _count(tree.texts[path])
        if lines > MAX_FILE:
            yield path, lines, f'{lines} lines, and {MAX_FILE} is the most'


@check('file-median', bad={f'util/{i}.c': 'int a;\n' * (MAX_MEDIAN + 1) for i in range(3)})
def file_median(tree):
    median = statistics.median([_count(tree.texts[p]) for p in tree.sources()] or [0])
    if median > MAX_MEDIAN:
        yield 'all sources', 0, f'the median is {median} lines, and {MAX_MEDIAN} is the most'


def _python_functions(path, text):
    for node in ast.walk(ast.parse(text, path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield csource.Function(node.name, node.lineno, node.end_lineno - node.lineno + 1)


def _shell_functions(text):
    name, start = None, 0
    for number, line in enumerate(text.splitlines(), 1):
        match = re.match(r'(?:function\s+)?([\w-]+)\s*\(\)\s*[{(]', line)
        if match:
            name, start = match.group(1), number
        elif name and re.match(r'[})]', line):
            yield csource.Function(name, start, number - start + 1)
            name = None


def _functions(path, text):
    if path.endswith(('.c', '.h')):
        return csource.functions(text)
    if path.endswith('.py'):
        return _python_functions(path, text)
    return _shell_functions(text)


@check('function-length', faults=4, bad={
    'util/a.c': _long_c(),
    'util/b.h': 'static inline ' + _long_c(),
    'tests/a.py': 'def f(a):\n' + '    a += 1\n' * MAX_FUNCTION,
    'tests/a.sh': 'f() {\n' + '    :\n' * MAX_FUNCTION + '}\n'})
def function_length(tree):
    for path in tree.sources():
        for name, line, length in _functions(path, tree.texts[path]):
            if length > MAX_FUNCTION:
                yield path, line, f'{name}() has {length} lines, and {MAX_FUNCTION} is the most'


@check('line-form', faults=4, bad={
    'util/a.c': 'int a; /* ' + 'x' * MAX_COLUMNS + ' */\n',
    'util/b.c': 'int a;\t\n',
    'util/c.h': 'int a;'})
def line_form(tree):
    for path in tree.sources():
        text = tree.texts[path]
        for number, line in enumerate(text.split('\n'), 1):
            if len(line) > MAX_COLUMNS:
                yield path, number, f'{len(line)} columns, and {MAX_COLUMNS} is the most'
            if line != line.rstrip():
                yield path, number, 'blanks at the end of the line'
            if '\t' in line and not path.endswith('.S'):
                yield path, number, 'a tab'
        if text and not text.endswith('\n'):
            yield path, text.count('\n') + 1, 'no newline at the end of the file'
