# SPDX-License-Identifier: LGPL-2.1-or-later
"""Just enough reading of C for the checks: functions, declarations, includes.

It relies on the project's style (a definition's name stands on the line where
the definition begins) and needs no compiler.
"""
import re
from collections import namedtuple

Function = namedtuple('Function', 'name line length')
Declaration = namedtuple('Declaration', 'name line kind')

_TOKEN = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
_DIRECTIVE = re.compile(r'^[ \t]*#(?:[^\n]*\\\n)*[^\n]*', re.M)
_CONDITIONAL = re.compile(r'^[ \t]*#[ \t]*(if|ifdef|ifndef|elif|else|endif)\b', re.M)


def _blank(match):
    return re.sub(r'[^\n]', ' ', match.group())


def strip(text):
    """Comments and the insides of literals become spaces; lines stay."""
    return _TOKEN.sub(_blank, text)


def strip_comments(text):
    """Comments become spaces; literals stay."""
    return _TOKEN.sub(lambda m: _blank(m) if m.group().startswith('/') else m.group(), text)


def strip_directives(stripped):
    """Preprocessor lines become spaces too."""
    return _DIRECTIVE.sub(_blank, stripped)


def includes(text):
    """The names in quoted #include lines, with their line numbers."""
    for number, line in enumerate(text.splitlines(), 1):
        match = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
        if match:
            yield number, match.group(1)


def _conditionals(stripped):
    return {m.start(): m.group(1) for m in _CONDITIONAL.finditer(stripped)}


def _function_name(head):
    """The name if @head, the text before a brace, begins a function."""
    head = head.rstrip()
    if not head.endswith(')') or re.search(r'(?<![=!<>])=(?!=)', head):
        return None
    if re.search(r'\b(struct|union|enum)\s+\w+\s*\([^()]*\)$', head):
        return None
    depth = 0
    for pos in range(len(head) - 1, -1, -1):
        depth += (head[pos] == ')') - (head[pos] == '(')
        if depth == 0 and head[pos] == '(':
            match = re.search(r'(\w+)\s*$', head[:pos])
            return match and (match.group(1), match.start())
    return None


def functions(text):
    """Every function definition, its length counted from its name to its brace."""
    stripped = strip(text)
    conditionals = _conditionals(stripped)
    code = strip_directives(stripped)
    saved, depth, start, found, current = [], 0, 0, [], None
    for pos, char in enumerate(code):
        word = conditionals.get(pos)
        if word in ('if', 'ifdef', 'ifndef'):
            saved.append(depth)
        elif word in ('elif', 'else') and saved:
            # The branches are alternatives: each starts as deep as the first.
            depth = saved[-1]
        elif word == 'endif' and saved:
            saved.pop()
        if char == '{':
            named = _function_name(code[start:pos]) if depth == 0 else None
            if named:
                current = (named[0], code.count('\n', 0, start + named[1]) + 1)
            depth += 1
        elif char == '}':
            depth = max(0, depth - 1)
            if depth == 0 and current:
                end = code.count('\n', 0, pos) + 1
                found.append(Function(*current, end - current[1] + 1))
                current = None
        if depth == 0 and char in ';}':
            start = pos + 1
    return found


def declarations(text):
    """The functions and variables that a header declares for its users."""
    code = strip_directives(strip(text))
    start, depth = 0, 0
    for pos, char in enumerate(code):
        depth += (char in '{(') - (char in '})')
        if depth != 0 or char not in ';}':
            continue
        statement, offset, start = code[start:pos], start, pos + 1
        # A macro of GLib's that needs no semicolon may stand before it.
        match = re.search(r'(?:G_(?:BEGIN|END)_DECLS|G_DEFINE_AUTO\w*\s*\([^)]*\)|\s)*', statement)
        offset += match.end()
        statement = statement[match.end():]
        declared = _declared(statement)
        if declared:
            name, kind, where = declared
            yield Declaration(name, code.count('\n', 0, offset + where) + 1, kind)


def _declared(statement):
    if char_class(statement) == 'other':
        return None
    if statement.startswith('extern') and '(' not in statement:
        match = re.search(r'(\w+)\s*(\[[^\]]*\])?\s*$', statement)
        return match.group(1), 'variable', match.start()
    for match in re.finditer(r'\b([a-z_]\w*)\s*\(', statement):
        if not match.group(1).startswith('__'):
            return match.group(1), 'function', match.start(1)
    return None


def char_class(statement):
    """Whether a statement can declare something that the library exports."""
    if re.match(r'(typedef|static|struct|union|enum|#)\b', statement):
        # A function may return a struct; a type alone has no parameters.
        if not re.match(r'(struct|union|enum)\s+\w+\s*\*?\s*\w+\s*\(', statement):
            return 'other'
    return 'declaration' if statement.strip() else 'other'
