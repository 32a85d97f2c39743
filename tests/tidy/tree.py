# SPDX-License-Identifier: LGPL-2.1-or-later
"""The files that the checks look at, from a folder or, in tests, from a dict."""
import os
import re
import subprocess

# Where the built programs' help texts are put: no folder of the repository.
HELP = '--help/'


class Tree:
    """Maps a path relative to the top folder to the file's text."""

    def __init__(self, texts):
        self.texts = texts

    def paths(self, *suffixes, under=''):
        return [p for p in sorted(self.texts)
                if p.startswith(under) and (not suffixes or p.endswith(suffixes))]

    def items(self, *suffixes, under=''):
        return [(p, self.texts[p]) for p in self.paths(*suffixes, under=under)]

    def sources(self):
        """What is written in a programming language, by us."""
        scripts = [p for p, text in self.items() if '.' not in os.path.basename(p)
                   and text.startswith('#!')]
        return self.paths('.c', '.h', '.S', '.py', '.sh') + scripts


def _known_to_git(top):
    command = ['git', '-C', top, 'ls-files', '-z', '--cached', '--others', '--exclude-standard']
    try:
        done = subprocess.run(command, capture_output=True, check=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return [p for p in done.stdout.split('\0') if p]


def _walk(top):
    for folder, folders, files in os.walk(top):
        folders[:] = [f for f in folders if not f.startswith(('build', '.git', '__pycache__'))]
        for name in files:
            yield os.path.relpath(os.path.join(folder, name), top)


def _help_texts(tools):
    """What the programs in folder @tools, and their commands, say when asked for help."""
    for program in sorted(os.listdir(tools)):
        path = os.path.join(tools, program)
        if not program.startswith('blockgraph-') or not os.access(path, os.X_OK) \
                or not os.path.isfile(path):
            continue

        def ask(*words, path=path):
            done = subprocess.run([path, *words], capture_output=True, text=True, check=True)
            return done.stdout
        text = ask('--help')
        yield HELP + program, text
        table = re.search(r'^Commands\b.*:\n((?:[ ]+\S.*\n)+)', text, re.M)
        if 'COMMAND' in text and table is None:
            raise ValueError(f'{program} --help names no commands')
        for command in re.findall(r'^  ([a-z]\w*)', table.group(1) if table else '', re.M):
            yield f'{HELP}{program}/{command}', ask(command, '--help')
        # Commands that are typed to a program tell of themselves.
        if '-c help' in text:
            for command in re.findall(r'^([a-z]\w*)(?=.* -- )', ask('-c', 'help'), re.M):
                yield f'{HELP}{program}/{command}', ask('-c', f'help {command}')


def load(top, tools=None):
    """The tree in folder @top: what git knows or would add, binary files left out."""
    texts = {}
    for path in _known_to_git(top) or _walk(top):
        try:
            with open(os.path.join(top, path), encoding='utf-8', newline='') as f:
                texts[path] = f.read()
        except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
            continue
    if tools is not None and os.path.isdir(tools):
        texts.update(_help_texts(tools))
    return Tree(texts)
